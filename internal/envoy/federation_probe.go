package envoy

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// A probe is a request from one control plane to the other. It takes the path of their other traffic or, for an import,
// uses a handshake with the export's server name. In both cases the peer's control plane answers, and workloads are not
// involved. Each gateway adds its timings to the response.

// useProbeSNI makes a cluster to a peer's control plane use the server name that a probe requests, on a new connection
// for each exchange, so that each one tests the handshake, too.
func useProbeSNI(c *clusterv3.Cluster) {
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": anyOf(&upstreamhttpv3.HttpProtocolOptions{
			CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
				MaxRequestsPerConnection: u32(1),
				IdleTimeout:              millis(pooledIdle),
			},
			UpstreamHttpProtocolOptions: &corev3.UpstreamHttpProtocolOptions{
				AutoSni:               true,
				OverrideAutoSniHeader: wellknown.HeaderProbe,
			},
			UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
						HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
					},
				},
			},
		}),
	}
}

// between formats the time between two points of a request as measured by Envoy, in microseconds.
func between(from, to string) string { return fmt.Sprintf("%%COMMON_DURATION(%s:%s:us)%%", from, to) }

// waited is the time until the upstream started its response.
var waited = between("US_TX_END", "US_RX_BEG")

// egressLeg makes the gateway report to its own control plane how far a request got.
func egressLeg(m *hcmv3.HttpConnectionManager, r *routev3.Route) *hcmv3.HttpConnectionManager {
	r.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
		overwrite(wellknown.HeaderEgressLeg, "connect="+between("US_CX_BEG", "US_CX_END")+
			" handshake="+between("US_CX_END", "US_HS_END")+" answer="+waited+" at=%UPSTREAM_REMOTE_ADDRESS%"),
	}
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{ownAnswer(wellknown.HeaderEgressLeg,
		"failed=%RESPONSE_FLAGS% at=%UPSTREAM_HOST% reason=%RESPONSE_CODE_DETAILS%")}}
	return m
}

// ownAnswer adds a header if the gateway answers itself because nobody else did.
func ownAnswer(name, value string) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter:       answeredFrom(500),
		HeadersToAdd: []*corev3.HeaderValueOption{overwrite(name, value)},
	}
}

// probeRoute forwards a peer's probes to the control plane and reports the response time.
func probeRoute(p *model.Peer) *routev3.Route {
	r := only("GET", wellknown.ProbePath, overwrite("isthmus-peer", p.Name))
	r.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
		overwrite(wellknown.HeaderIngressLeg, "answer="+waited+" sni=%REQUESTED_SERVER_NAME%"),
	}
	r.GetRoute().Timeout = millis(5000) // shorter than the timeout of the asking gateway
	return r
}

// probeHost answers probes on an export's chain as a separate virtual host, which no request for the service can match.
func probeHost(host string, p *model.Peer) *routev3.VirtualHost {
	r := probeRoute(p)
	r.TypedPerFilterConfig = policyConfig(nil, &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{"isthmus/probe": {
		Principals: []*rbacv3.Principal{anyone()}, Permissions: []*rbacv3.Permission{andPermissions(nil)},
	}}})
	return &routev3.VirtualHost{Name: host, Domains: []string{host}, Routes: []*routev3.Route{r}}
}
