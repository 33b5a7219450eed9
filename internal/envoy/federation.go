package envoy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// federation adds the two listeners of a gateway's boundary to other meshes: ingress for peers, egress for callers in
// this mesh. Neither has a catch-all chain: a client that requests a name that is not offered to it cannot complete the
// handshake.
func (b *builder) federation(g *model.Gateway) {
	b.ingress(g)
	b.egress(g)
	// Chains refer to these, so they exist even while the control plane's address is unknown.
	b.add(ClusterType, controlCluster, b.controlCluster(g, controlCluster, "http/1.1"), nil)
	b.add(ClusterType, peeringCluster, b.controlCluster(g, peeringCluster, wellknown.PeeringProtocol), nil)
}

// The two clusters that lead to our control plane: one for probes, which the gateway terminates, and one for the TLS of
// other meshes' control planes.
const (
	controlCluster = "control"
	peeringCluster = "peering"
)

// boundary returns a new gateway listener. It logs every connection, admitted or refused, with its chain ("<peer>/…").
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

// withConnectionShare limits the connections of one chain, so that a peer with very many on one export, or a caller on
// one import, leaves room for the other chains. The limit does not depend on the number of chains, since changing a
// chain drops its connections.
func withConnectionShare(g *model.Gateway, fc *listenerv3.FilterChain) *listenerv3.FilterChain {
	return atMost(max(g.MaxConnections/16, 1), fc)
}

// maxControlConnections limits the connections of one chain to our control plane.
const maxControlConnections = 16

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

// controlCluster leads to the control plane with a given ALPN protocol.
func (b *builder) controlCluster(g *model.Gateway, name, protocol string) *clusterv3.Cluster {
	c := cluster(name, nil)
	var eps []model.Endpoint
	for _, a := range g.ControlAt {
		eps = append(eps, model.Endpoint{Addr: a.Addr(), Port: a.Port(), Healthy: true})
	}
	useEndpoints(c, eps, g.Inner)
	c.TransportSocket = clientTLS(g.Identity.String(), b.view.TrustDomain.Name(), exactly(g.Control.String()),
		"", protocol)
	return c
}

// inlineRoutes sets routes that do not change during the life of the chain, which was selected by server name.
func inlineRoutes(m *hcmv3.HttpConnectionManager, name string, routes ...*routev3.Route) *hcmv3.HttpConnectionManager {
	m.UpgradeConfigs = nil
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		VirtualHosts: []*routev3.VirtualHost{{Name: name, Domains: everyHost, Routes: routes}},
	}}
	return m
}

// overwrite sets a header, replacing any value from the client.
func overwrite(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// without removes names from overrideHeaders that a route sets itself.
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

// leaks are headers that would reveal one mesh's internals to the other.
var leaks = []string{
	"server", "via", "x-powered-by", "x-served-by", "x-backend", "x-backend-server", "x-upstream", "x-real-ip",
	"forwarded",
	"alt-svc", "proxy-status", "x-envoy-upstream-service-time", "x-envoy-decorator-operation",
	"x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
}

// requestLeaks must not leave the mesh with a request. Baggage is information between a mesh's programs that must not
// cross trust boundaries (W3C Baggage §4.2). Of a trace only the IDs cross, in traceparent and tracestate.
var requestLeaks = append([]string{
	"x-forwarded-for", "x-forwarded-client-cert", "forwarded", "x-real-ip", "via", "baggage",
	"x-envoy-external-address", "x-envoy-internal", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
	"x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count", wellknown.HeaderProbe,
}, without(overrideHeaders, callerHeader)...)

// familiesOfLeaks matches families of headers with which proxies reveal internals. x-forwarded-proto is not secret, and
// applications need it.
var familiesOfLeaks = []string{`x-envoy-.*`, allBut("x-forwarded-", "proto")}

// allBut returns an expression for every text with the prefix, except the one that continues with except.
func allBut(prefix, except string) string {
	expression := quote(except) + ".+"
	for i := range except {
		expression += "|" + quote(except[:i]) + "(?:[^" + quote(except[i:i+1]) + "].*)?"
	}
	return quote(prefix) + "(?:" + expression + ")"
}

// removedLike removes headers whose names match one of the expressions, in a single pass over the headers.
func removedLike(expressions ...[]string) []*mutationv3.HeaderMutation {
	whole := each(slices.Concat(expressions...), func(e string) string { return "(?:" + e + ")" })
	return each(joined(whole), func(e string) *mutationv3.HeaderMutation { return removedMatching(regex(e)) })
}

// boundaryManager returns the connection manager of a chain whose calls cross the boundary. It removes what requests
// must not carry before anything reads them. Headers that a filter reads, and those that Envoy adds, are removed by the
// routes (requestsOwn).
func boundaryManager(name string, filters []*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	m := behindEnvoys(httpManager(name, name, filters, nil))
	families := []string{allBut("x-envoy-", strings.TrimPrefix(attemptHeader, "x-envoy-")), familiesOfLeaks[1]}
	names := append(without(requestLeaks, attemptHeader, upgradeHeader), keptRequestID)
	taken := removedLike(families, each(names, quote), oddSpellings(ownNames, "-"))
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{early(append(taken, renameUpgrade...)...)}
	return m
}

// requestsOwn are headers that Envoys add to a request, here or at the caller.
var requestsOwn = []string{attemptHeader, upgradeHeader, "x-envoy-external-address", "x-envoy-internal"}

// boundaryFilters returns the policy filters, preceded by filters that remove from responses the headers that reveal
// internals and those whose names match one of the expressions, and that check the request ID.
func boundaryFilters(answers ...string) []*hcmv3.HttpFilter {
	changes := newHTTPFilter(boundaryFilter,
		anyOf(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
			RequestTrailersMutations:  trailersRemoved,
			ResponseMutations:         removedLike(familiesOfLeaks, each(leaks, quote), answers),
			ResponseTrailersMutations: answerTrailersRemoved,
		}}))
	return append([]*hcmv3.HttpFilter{changes, plainRequestID}, policyFilters()...)
}

// idCharacters are the characters of a plain x-request-id.
const idCharacters = `A-Za-z0-9._~+/=:@-`

// keptRequestID is an internal header that no client can set: boundaryManager removes it.
const keptRequestID = "isthmus-request-id"

// plainRequestID keeps a single short, plain x-request-id, so that the logs of both meshes can be correlated. Any other
// is removed.
var plainRequestID = newHTTPFilter(requestIDFilter, anyOf(&headermutationv3.HeaderMutation{
	Mutations: &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		written(keptRequestID, `%CEL('x-request-id' in request.headers &&`+
			` request.headers['x-request-id'].matches('^[`+idCharacters+`]+$') &&`+
			` size(request.headers['x-request-id']) <= 128 ? request.headers['x-request-id'] : '')%`),
		removed("x-request-id"),
		written("x-request-id", "%REQ("+keptRequestID+")%"),
		removed(keptRequestID),
	}},
}))

func written(name, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: overwrite(name, value)}}
}

// tagged returns the tags of an entry about an object at a peer.
func tagged(peer tag, object, sni string) []tag {
	return append([]tag{peer, {name: "object", value: object}, {name: "sni", value: sni}}, certificateTags...)
}

func ingressName(peer, sni string) string { return fmt.Sprintf("%s/%s", peer, sni) }

var (
	ingressLog = wellknown.LogIngress
	egressLog  = wellknown.LogEgress
)
