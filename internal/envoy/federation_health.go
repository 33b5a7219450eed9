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

// Health checks go to the same place as calls: with the export's server name and the same certificates, but with a
// separate ALPN protocol, which has its own chain at the gateway. So a check proves that the peer's gateway is up,
// knows this mesh and offers this name. Its response says only whether a ready endpoint is behind it. Checks do not
// reach workloads, and on raw TCP they open no connection to one. A caller that has endpoints other than peers checks
// its own gateway in the same way.

// healthALPN is the ALPN protocol of health checks.
const healthALPN = "isthmus-health"

const healthPath = "/health"

// Health check intervals in milliseconds, for endpoints with and without traffic. Two consecutive timeouts mark an
// endpoint as unhealthy; a response that nothing is ready does so at once.
const (
	healthEvery     = 1000
	healthEveryIdle = 5000
	healthTimeout   = 1000
)

// withHealthChecks enables health checks of a cluster's endpoints.
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

// withHealth adds, beside a gateway's chain, a chain that answers whether the cluster behind it has a ready endpoint.
// It admits the same clients and as many connections: each import of a peer and each calling workload keeps one open.
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
			// a single endpoint is enough
			ClusterMinHealthyPercentages: map[string]*typev3.Percent{cluster: {Value: 0.0001}},
			Headers: []*routev3.HeaderMatcher{
				header(":path", model.Match{Value: healthPath}),
			},
		})),
	}, nil)
	return []*listenerv3.FilterChain{
		fc,
		withConnectionShare(g, chain(name, match, fc.TransportSocket, managerFilter(inlineRoutes(m, name)))),
	}
}
