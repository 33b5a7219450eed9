package envoy

import (
	"fmt"
	"net/netip"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// federation makes the two guarded sides of a gateway's boundary to other meshes: ingress for peers, egress for the
// mesh's own callers. Neither has a catch-all chain: who asks for a name that is not offered to it cannot finish a
// handshake.
func (b *builder) federation(g *model.Gateway) {
	b.ingress(g)
	b.egress(g)
	// Chains lead to these, so that they are there also while nobody knows where the control plane is.
	b.add(ClusterType, controlCluster, b.controlCluster(g, controlCluster, "http/1.1"), nil)
	b.add(ClusterType, peeringCluster, b.controlCluster(g, peeringCluster, wellknown.PeeringProtocol), nil)
}

// The two clusters that lead to our control plane: for probes, which the gateway itself speaks, and for what the
// control planes of other meshes speak inside.
const (
	controlCluster = "control"
	peeringCluster = "peering"
)

// boundary begins a gateway listener: every connection, admitted or refused, is logged with its chain ("<peer>/…").
func boundary(name string, addrs []netip.Addr, port uint16, log string) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name: name, Address: socket(addrs[0].String(), port),
		ListenerFilters: []*listenerv3.ListenerFilter{tlsInspector()}, SocketOptions: keepaliveOptions(),
		PerConnectionBufferLimitBytes: u32(bufferLimit),
		AccessLog: []*accesslogv3.AccessLog{
			tcpLog(log, nil, append([]tag{{name: "chain", value: "%FILTER_CHAIN_NAME%"}}, certificateTags...)...),
		},
	}
	for _, a := range addrs[1:] {
		l.AdditionalAddresses = append(
			l.AdditionalAddresses,
			&listenerv3.AdditionalAddress{Address: socket(a.String(), port)},
		)
	}
	return l
}

// ofShare bounds how many connections one chain holds, so that a peer that holds very many on one export, or a caller
// on one import, leaves the other chains their places. The share does not depend on how many chains there are: a chain
// that changes drops its connections.
func ofShare(g *model.Gateway, fc *listenerv3.FilterChain) *listenerv3.FilterChain {
	return atMost(max(g.MaxConnections/16, 1), fc)
}

// toControl is how many connections one chain may hold with our control plane, which gets one for each of them.
const toControl = 16

func atMost(connections uint32, fc *listenerv3.FilterChain) *listenerv3.FilterChain {
	limit := newNetworkFilter(connectionsFilter, anyOf(&connectionlimitv3.ConnectionLimit{
		StatPrefix: fc.Name, MaxConnections: &wrapperspb.UInt64Value{Value: uint64(connections)},
	}))
	addNetworkFilters(fc, limit)
	return fc
}

func onSNI(sni string) *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{ServerNames: []string{sni}, TransportProtocol: "tls"}
}

// controlCluster reaches the control plane to speak a protocol with it.
func (b *builder) controlCluster(g *model.Gateway, name, protocol string) *clusterv3.Cluster {
	c := cluster(name, nil)
	var eps []model.Endpoint
	for _, a := range g.ControlAt {
		eps = append(eps, model.Endpoint{Addr: a.Addr(), Port: a.Port(), Healthy: true})
	}
	static(c, eps, g.Inner)
	c.TransportSocket = clientTLS(g.Identity.String(), b.view.TrustDomain.Name(), exactly(g.Control.String()),
		"", protocol)
	return c
}

// inlineRoutes are routes that never change while the chain lives, which was found by its name in the handshake.
func inlineRoutes(m *hcmv3.HttpConnectionManager, name string, routes ...*routev3.Route) *hcmv3.HttpConnectionManager {
	m.UpgradeConfigs = nil
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		VirtualHosts: []*routev3.VirtualHost{{Name: name, Domains: everyHost, Routes: routes}},
	}}
	return m
}

// overwrite sets a header, whatever the sender put there.
func overwrite(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// remove takes names away from overrideHeaders that a route itself sets.
func without(list []string, names ...string) []string {
	var out []string
	for _, v := range list {
		keep := true
		for _, n := range names {
			keep = keep && v != n
		}
		if keep {
			out = append(out, v)
		}
	}
	return out
}

// leaks are headers that would tell one mesh about the inside of the other.
var leaks = []string{
	"server", "via", "x-powered-by", "x-served-by", "x-backend", "x-backend-server", "x-upstream", "x-real-ip",
	"forwarded",
	"alt-svc", "proxy-status", "x-envoy-upstream-service-time", "x-envoy-decorator-operation",
	"x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
}

// requestLeaks are what a request must not carry out of its mesh. Baggage is what a mesh's own programs tell each other
// beside their requests, which is not to pass trust boundaries (W3C Baggage §4.2); of a trace its numbers pass, in
// traceparent and tracestate.
var requestLeaks = append([]string{
	"x-forwarded-for", "x-forwarded-client-cert", "forwarded", "x-real-ip", "via", "baggage",
	"x-envoy-external-address", "x-envoy-internal", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
	"x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count", wellknown.HeaderProbe,
}, without(overrideHeaders, callerHeader)...)

// familiesOfLeaks match such headers, by which proxies tell each other of their inside. Which protocol the client spoke
// is no secret, and applications ask for it.
var familiesOfLeaks = []*matcherv3.StringMatcher{
	{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "x-envoy-"}},
	regex(
		`x-forwarded-(?:[^p].*|p|p[^r].*|pr|pr[^o].*|pro|pro[^t].*|prot|prot[^o].*|proto.+)?`,
	), // not x-forwarded-proto
}

// boundaryFilters are the policy filters behind those that make these changes, drop those families and look at the
// request's ID.
func boundaryFilters(requests, answers []*mutationv3.HeaderMutation) []*hcmv3.HttpFilter {
	drop := each(familiesOfLeaks, removedMatching)
	changes := newHTTPFilter(boundaryFilter,
		anyOf(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
			RequestMutations:         slices.Concat(requests, drop, ownLookalikes),
			RequestTrailersMutations: trailersRemoved,
			ResponseMutations:        slices.Concat(answers, drop), ResponseTrailersMutations: answerTrailersRemoved,
		}}))
	attempts := newHTTPFilter(notesFilter, anyOf(notes(noteAttempt)))
	return append([]*hcmv3.HttpFilter{attempts, changes, plainRequestID}, policyFilters()...)
}

// keptRequestID is nobody's but ours.
const keptRequestID = "isthmus-request-id"

// plainRequestID keeps the one x-request-id that is short and plain, so that both meshes' records can be laid side by
// side; any other is taken away.
var plainRequestID = forRequestsWith(newHTTPFilter(requestIDFilter, anyOf(&headermutationv3.HeaderMutation{
	Mutations: &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		removed(keptRequestID),
		written(keptRequestID, `%CEL(request.headers['x-request-id'].matches('^[A-Za-z0-9._~+/=:@-]+$')`+
			` && size(request.headers['x-request-id']) <= 128 ? request.headers['x-request-id'] : '')%`),
		removed("x-request-id"),
		written("x-request-id", "%REQ("+keptRequestID+")%"),
		removed(keptRequestID),
	}},
})), "x-request-id", keptRequestID)

func written(name, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: overwrite(name, value)}}
}

// tagged says what an entry is about.
func tagged(peer tag, object, sni string) []tag {
	return append([]tag{peer, {name: "object", value: object}, {name: "sni", value: sni}}, certificateTags...)
}

func ingressName(peer, sni string) string { return fmt.Sprintf("%s/%s", peer, sni) }

var (
	ingressLog = wellknown.LogIngress
	egressLog  = wellknown.LogEgress
)
