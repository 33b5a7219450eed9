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

// cluster begins a cluster that dials from a workload's namespace, or with nil from the proxy's own.
func cluster(name string, w *model.Workload) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: millis(2000), UpstreamBindConfig: dialFrom(w, wellknown.SocketMark),
		PerConnectionBufferLimitBytes: u32(bufferLimit),
		// What is not ready gets nothing, even when nothing is ready: Envoy's default would then try them all.
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(65536), MaxPendingRequests: u32(65536), MaxRequests: u32(65536), MaxRetries: u32(65536),
		}}},
	}
}

// bySet makes it find its endpoints by a shared endpoint set.
func bySet(c *clusterv3.Cluster, set model.EndpointSet) *clusterv3.Cluster {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS(), ServiceName: SetName(set)}
	return c
}

// static makes it have fixed endpoints; host names among them are resolved for who has the addresses own.
func static(c *clusterv3.Cluster, eps []model.Endpoint, own []netip.Addr) *clusterv3.Cluster {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	if slices.ContainsFunc(eps, func(e model.Endpoint) bool { return e.Host != "" }) {
		resolved(c, own)
	}
	c.LoadAssignment = assignment(c.Name, eps)
	return c
}

// resolved makes it look host names up, first in the IP version that is written first: only what is not found there is
// looked for in the other.
func resolved(c *clusterv3.Cluster, own []netip.Addr) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	if len(own) == 0 || own[0].Is4() {
		c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	}
}

// The shortest and the longest time for which an endpoint that fails is out. It grows with each time in a row.
const (
	leastEjection = 1000
	mostEjection  = 30_000
)

// quickToEject takes an endpoint that cannot be reached out at once, so that calls go elsewhere or are refused without
// a wait. It is out for longer each time in a row, but no longer than until its gateway says that it is well
// (federation_health.go).
//
// Nothing that is answered counts, whatever the import's protocol. Envoy takes the status of a gRPC answer without a
// message for one of HTTP, UNAVAILABLE for 503, and so an application's three errors would take its source away from
// everybody. A call that is answered by a mesh's Envoy with the word that nothing has begun it goes elsewhere by its
// retries, and that a source has no ready endpoint is told by its control plane and seen by health checks.
func quickToEject(c *clusterv3.Cluster) *clusterv3.Cluster {
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

// avoidSilent leaves an endpoint that cannot be reached alone for a while, longer each time, so that it costs no more
// than the connection that found it out. Where none can be reached all are tried. What is answered does not matter.
// Envoy takes back what it has lengthened the while by, once in an interval in which the endpoint is in use: the
// interval is therefore longer than finding it silent again takes.
func avoidSilent(c *clusterv3.Cluster, while time.Duration) *clusterv3.Cluster {
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

// withoutMergeWindow has a cluster act on what becomes of its endpoints when it hears of it. By default Envoy gathers
// that for a second.
func withoutMergeWindow(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.CommonLbConfig.UpdateMergeWindow = &durationpb.Duration{}
	return c
}

// speaking sets the HTTP version to other Envoys: HTTP/2 where the service says so, else the caller's.
func (b *builder) speaking(c *clusterv3.Cluster, p model.Protocol) *clusterv3.Cluster {
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

// addPrograms adds a cluster that leads to programs, and for an "http" port a second one for gRPC: see toPrograms.
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
