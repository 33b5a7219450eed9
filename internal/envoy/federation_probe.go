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

// A probe is a request from one control plane to the other. It takes the road of all that they say to each other or,
// for an import, a handshake under the export's own name, and is answered by the peer's control plane either way: no
// workload hears of it. Each gateway writes on the answer what its part took.

// asked makes a cluster that leads to a peer's control plane ask for the name that a probe wants, on a connection of
// its own: so each exchange proves the handshake, too.
func asked(c *clusterv3.Cluster) {
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

// between is what an Envoy measured between two moments of a request, in microseconds.
func between(from, to string) string { return fmt.Sprintf("%%COMMON_DURATION(%s:%s:us)%%", from, to) }

// waited is how long the upstream took to begin its answer.
var waited = between("US_TX_END", "US_RX_BEG")

// egressLeg makes the gateway tell its own control plane how far a request came.
func egressLeg(m *hcmv3.HttpConnectionManager, r *routev3.Route) *hcmv3.HttpConnectionManager {
	r.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
		overwrite(wellknown.HeaderEgressLeg, "connect="+between("US_CX_BEG", "US_CX_END")+
			" handshake="+between("US_CX_END", "US_HS_END")+" answer="+waited+" at=%UPSTREAM_REMOTE_ADDRESS%"),
	}
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{ownAnswer(wellknown.HeaderEgressLeg,
		"failed=%RESPONSE_FLAGS% at=%UPSTREAM_HOST% reason=%RESPONSE_CODE_DETAILS%")}}
	return m
}

// ownAnswer adds a header where the gateway answers itself, because nobody else did.
func ownAnswer(name, value string) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter:       answeredFrom(500),
		HeadersToAdd: []*corev3.HeaderValueOption{overwrite(name, value)},
	}
}

// probeRoute passes a peer's probes to the control plane and says how long that took to answer.
func probeRoute(p *model.Peer) *routev3.Route {
	r := only("GET", wellknown.ProbePath, overwrite("isthmus-peer", p.Name))
	r.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
		overwrite(wellknown.HeaderIngressLeg, "answer="+waited+" sni=%REQUESTED_SERVER_NAME%"),
	}
	r.GetRoute().Timeout = millis(5000) // shorter than the asking gateway waits
	return r
}

// probeHost answers probes on the chain of an export, as a host of its own: no request for the service can meet it.
func probeHost(host string, p *model.Peer) *routev3.VirtualHost {
	r := probeRoute(p)
	r.TypedPerFilterConfig = policyConfig(nil, &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{"isthmus/probe": {
		Principals: []*rbacv3.Principal{anyone()}, Permissions: []*rbacv3.Permission{andPermissions(nil)},
	}}})
	return &routev3.VirtualHost{Name: host, Domains: []string{host}, Routes: []*routev3.Route{r}}
}
