package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/model"
)

// Health is asked for at the place that will be called: under the very name of the export, by the same certificates,
// but with a protocol of its own (ALPN), which has a chain of its own at the gateway. So a question proves that the
// peer's gateway is there, that it knows this mesh, and that it offers this name; its answer says whether an endpoint
// behind it is ready, and nothing else. No workload hears of it, and on raw TCP no connection is opened for it. A
// caller that has endpoints beside the peers asks its own gateway in the same way.

// healthALPN is the protocol of such questions.
const healthALPN = "isthmus-health"

const healthPath = "/health"

// How often an endpoint is asked, in milliseconds: one that is called, and one that nobody calls. Two questions in a
// row without an answer count; the answer that nothing is ready does at once.
const (
	healthEvery     = 1000
	healthEveryIdle = 5000
	healthTimeout   = 1000
)

// withHealthChecks has the endpoints of a cluster asked.
func withHealthChecks(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.HealthChecks = []*corev3.HealthCheck{{
		Timeout: millis(healthTimeout), Interval: millis(healthEvery), IntervalJitterPercent: 10,
		NoTrafficInterval: millis(healthEveryIdle), NoTrafficHealthyInterval: millis(healthEveryIdle),
		UnhealthyThreshold: u32(2), HealthyThreshold: u32(1),
		TlsOptions: &corev3.HealthCheck_TlsOptions{AlpnProtocols: []string{healthALPN}},
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: healthALPN, Path: healthPath,
		}},
	}}
	return c
}

// withHealth adds, beside a chain of a gateway, the one that says whether the cluster behind it has an endpoint that is
// ready. Who may call may ask, and as many as may call: each import of a peer's, each workload that calls, keeps a
// connection.
func withHealth(g *model.Gateway, fc *listenerv3.FilterChain, cluster string) []*listenerv3.FilterChain {
	match := proto.Clone(fc.FilterChainMatch).(*listenerv3.FilterChainMatch)
	match.ApplicationProtocols = []string{healthALPN}
	name := fc.Name + "/health"
	m := httpManager(name, "", []*hcmv3.HttpFilter{
		newHTTPFilter(anonymousFilter, anyOf(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
			ResponseMutations: []*mutationv3.HeaderMutation{
				{Action: &mutationv3.HeaderMutation_Remove{Remove: "x-envoy-upstream-healthchecked-cluster"}},
			},
		}})),
		newHTTPFilter(healthFilter, anyOf(&healthv3.HealthCheck{
			PassThroughMode: boolean(false),
			// one endpoint is enough, of however many
			ClusterMinHealthyPercentages: map[string]*typev3.Percent{cluster: {Value: 0.0001}},
			Headers: []*routev3.HeaderMatcher{
				header(":path", model.Match{Value: healthPath}),
			},
		})),
	}, nil)
	return []*listenerv3.FilterChain{
		fc,
		ofShare(g, chain(name, match, fc.TransportSocket, managerFilter(inlineRoutes(m, name)))),
	}
}
