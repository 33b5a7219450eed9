package envoy

import (
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// cluster returns a new cluster that dials from a workload's network namespace or, if w is nil, from the proxy's own.
func cluster(name string, w *model.Workload) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: millis(2000), UpstreamBindConfig: dialFrom(w, wellknown.SocketMark),
		PerConnectionBufferLimitBytes: u32(bufferLimit),
		// Never send to unready endpoints. By default Envoy tries all of them if too few are healthy.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(65536), MaxPendingRequests: u32(65536), MaxRequests: u32(65536), MaxRetries: u32(65536),
		}}},
	}
}

// useEDS makes a cluster use a shared endpoint set over EDS.
func useEDS(c *clusterv3.Cluster, set model.EndpointSet) *clusterv3.Cluster {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS(), ServiceName: SetName(set)}
	return c
}

// useEndpoints gives a cluster fixed endpoints. Host names among them are resolved for a client with the addresses own.
func useEndpoints(c *clusterv3.Cluster, eps []model.Endpoint, own []netip.Addr) *clusterv3.Cluster {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	if slices.ContainsFunc(eps, func(e model.Endpoint) bool { return e.Host != "" }) {
		useDNS(c, own)
	}
	c.LoadAssignment = assignment(c.Name, eps)
	return c
}

// useDNS makes a cluster resolve host names, first in the IP version of the first address of own, then in the other.
func useDNS(c *clusterv3.Cluster, own []netip.Addr) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	if len(own) == 0 || own[0].Is4() {
		c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	}
}

// Minimum and maximum ejection time of a failing endpoint. It grows with consecutive ejections.
const (
	leastEjection = 1000
	mostEjection  = 30_000
)

// ejectFailing ejects an endpoint that cannot be connected to at once, so that calls go elsewhere or fail fast. The
// ejection time grows with repetition, but ends when the gateway reports that the endpoint is healthy
// (federation_health.go).
//
// Responses never count, whatever the import's protocol. Envoy maps the status of a trailers-only gRPC response to an
// HTTP status (UNAVAILABLE to 503), so three errors of an application would eject its endpoint for everybody. A call
// whose response says that no server has started it is retried elsewhere. That a source has no ready endpoint is
// reported by its control plane and detected by health checks.
func ejectFailing(c *clusterv3.Cluster) *clusterv3.Cluster {
	withoutMergeWindow(c)
	c.OutlierDetection = &clusterv3.OutlierDetection{
		EnforcingConsecutive_5Xx: u32(0), EnforcingConsecutiveGatewayFailure: u32(0), EnforcingSuccessRate: u32(0),
		SplitExternalLocalOriginErrors: true,
		ConsecutiveLocalOriginFailure:  u32(2), EnforcingConsecutiveLocalOriginFailure: u32(100),
		Interval: millis(
			1000,
		), BaseEjectionTime: millis(leastEjection), MaxEjectionTime: millis(mostEjection), MaxEjectionPercent: u32(100),
	}
	return c
}

// ejectUnreachable ejects an endpoint that cannot be connected to, for a growing time, so that it costs no more than
// the connection that detected it. If none can be connected to, all are tried. Responses do not matter. Envoy shortens
// the ejection time again once per interval in which the endpoint is in use, so the interval is longer than detecting a
// silent endpoint takes.
func ejectUnreachable(c *clusterv3.Cluster, while time.Duration) *clusterv3.Cluster {
	c.OutlierDetection = &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors: true,
		ConsecutiveLocalOriginFailure:  u32(1), EnforcingConsecutiveLocalOriginFailure: u32(100),
		EnforcingConsecutive_5Xx: u32(0), EnforcingConsecutiveGatewayFailure: u32(0),
		EnforcingSuccessRate: u32(0), EnforcingLocalOriginSuccessRate: u32(0),
		Interval: millis(10_000), BaseEjectionTime: durationpb.New(while), MaxEjectionTime: millis(300_000),
		MaxEjectionPercent: u32(100),
	}
	c.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: 1}
	return withoutMergeWindow(c)
}

// withoutMergeWindow makes a cluster apply endpoint updates immediately. By default Envoy merges those within a second.
func withoutMergeWindow(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.CommonLbConfig.UpdateMergeWindow = &durationpb.Duration{}
	return c
}

// setHTTPVersion sets the HTTP version towards other Envoys: HTTP/2 if the service's protocol says so, else the
// caller's version.
func (b *builder) setHTTPVersion(c *clusterv3.Cluster, p model.Protocol) *clusterv3.Cluster {
	if p == model.HTTP2 || p == model.GRPC {
		return inHTTP2(c, b.toEnvoy())
	}
	return withHTTPOptions(c, &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: toHTTP1, Http2ProtocolOptions: pooledHTTP2Options(),
			},
		},
	}, b.toEnvoy())
}

// addPrograms adds a cluster that leads to programs. For an "http" port it adds a second one for gRPC; see toPrograms.
func (b *builder) addPrograms(c *clusterv3.Cluster, p model.Protocol, refs []model.Ref) {
	switch p {
	case model.HTTP2, model.GRPC:
		inHTTP2(c, toProgram)
	case model.HTTP:
		grpc := proto.CloneOf(c)
		grpc.Name = grpcCluster(c.Name)
		if grpc.LoadAssignment != nil {
			grpc.LoadAssignment.ClusterName = grpc.Name
		}
		b.add(ClusterType, grpc.Name, inHTTP2(grpc, toProgram), refs)
		inHTTP1(c, toProgram)
	}
	b.add(ClusterType, c.Name, c, refs)
}

func inHTTP1(c *clusterv3.Cluster, p pool) *clusterv3.Cluster {
	return explicitly(c, &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: toHTTP1,
		},
	}, p)
}

func inHTTP2(c *clusterv3.Cluster, p pool) *clusterv3.Cluster {
	return explicitly(c, &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: pooledHTTP2Options(),
		},
	}, p)
}

func explicitly(
	c *clusterv3.Cluster,
	e *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig,
	p pool,
) *clusterv3.Cluster {
	return withHTTPOptions(c, &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: e},
	}, p)
}

func withHTTPOptions(c *clusterv3.Cluster, o *upstreamhttpv3.HttpProtocolOptions, p pool) *clusterv3.Cluster {
	o.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
		IdleTimeout: millis(p.idle), MaxHeadersCount: u32(maxHeaders + addedHeaders),
	}
	if p.life > 0 {
		o.CommonHttpProtocolOptions.MaxConnectionDuration = millis(p.life)
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": anyOf(o),
	}
	return c
}
