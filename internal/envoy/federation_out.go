package envoy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/wellknown"
)

// egress adds what callers in the mesh may reach at peers: one chain per import, which admits only the import's
// callers.
func (b *builder) egress(g *model.Gateway) {
	l := boundary(wellknown.EgressListener, g.Inner, wellknown.FederationEgress, egressLog)
	l.AccessLog[0].Filter = when(fmt.Sprintf(
		`connection.requested_server_name != %q || connection.transport_failure_reason != "" && !%s`,
		homeSNI,
		peerClosed,
	))
	l.FilterChains = append(l.FilterChains, b.home(g))
	var refs []model.Ref
	for _, i := range g.Federation.Imports {
		cluster := SetName(i.AtGateways().Set)
		for _, fc := range b.importChains(g, i, cluster) {
			l.FilterChains = append(l.FilterChains, withHealth(g, fc, cluster)...)
			withConnectionShare(g, servedBy(i, fc))
		}
		refs = append(refs, i.Ref)
	}
	for _, p := range g.Federation.Peers {
		l.FilterChains = append(l.FilterChains, b.controlToPeer(g, p), b.probeToPeer(g, p))
		refs = append(refs, p.Ref)
	}
	for _, s := range g.Federation.Bootstraps {
		if fc := b.bootstrap(g, s); fc != nil {
			l.FilterChains = append(l.FilterChains, fc)
		}
	}
	b.add(ListenerType, l.Name, l, refs)
}

// importChains verify the local caller and call the peer with the gateway's identity, asserting the caller's. For HTTP
// one chain serves all callers, since the list of callers is in the routes. For raw TCP only the handshake can decide,
// so each caller has its own chain; adding or removing one does not affect the others, whose connections Envoy would
// otherwise cut.
func (b *builder) importChains(g *model.Gateway, i *model.Import, name string) []*listenerv3.FilterChain {
	called := i.Own()
	td := b.view.TrustDomain.Name()
	refs := []model.Ref{i.Ref}
	for _, r := range i.Remotes {
		refs = append(refs, r.Peer.Ref)
	}
	c := b.toPeers(g, name, i)
	if !i.Protocol.IsHTTP() {
		b.add(ClusterType, name, c, refs)
		return each(i.Callers, func(caller string) *listenerv3.FilterChain {
			host := egressSNI(called, i.Protocol, caller)
			log := tcpLog(egressLog, nil, tagged(server(i), i.Name, host)...)
			return chain(name+"<"+caller, onSNI(host), serverTLS(g.Identity.String(), td, exactly(caller)),
				tcpProxy(name, name, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE, log))
		})
	}
	host := egressSNI(called, i.Protocol, "")
	b.add(ClusterType, name, b.setHTTPVersion(c, i.Protocol), refs)
	b.add(RouteType, name, b.importRoutes(name, i), refs)
	attempts := newHTTPFilter(notesFilter, anyOf(notes(noteAttempt)))
	m := boundaryManager(name, append(boundaryFilters(), attempts, innerNamesOfRequests(b.view.Domain)))
	withLocalReplies(m, "the boundary of "+td, refused("the FederatedImport does not list this caller"))
	servedBy := "%UPSTREAM_METADATA(" + hostTags + ":peer)%"
	m.AccessLog = append(m.AccessLog, crossings(egressLog, i.Remotes[0].Peer.Name, servedBy, i.Name, host))
	return []*listenerv3.FilterChain{
		chain(name, onSNI(host), serverTLS(g.Identity.String(), td, inDomain(td)), managerFilter(m)),
	}
}

// server tags the peer that served a call, or the first candidate if none was reached.
func server(i *model.Import) tag {
	return tag{name: "peer", value: i.Remotes[0].Peer.Name, ofHost: true}
}

// servedBy changes the chain when other gateways serve the import, so that Envoy cuts existing connections. A change of
// the cluster alone would leave a suspended peer its open connections.
func servedBy(i *model.Import, fc *listenerv3.FilterChain) *listenerv3.FilterChain {
	var gateways []string
	for _, r := range i.Remotes {
		for _, list := range [][]string{r.Peer.GatewayIDs, r.Peer.Addresses} {
			for _, v := range list {
				gateways = append(gateways, r.SNI+" "+v)
			}
		}
	}
	slices.Sort(gateways)
	fc.Metadata = &corev3.Metadata{
		FilterMetadata: map[string]*structpb.Struct{hostTags: {Fields: map[string]*structpb.Value{
			"gateways": structpb.NewStringValue(strings.Join(gateways, ", ")),
		}}},
	}
	return fc
}

// ordinaryOut describes requests from callers of this mesh.
var ordinaryOut = crossing{
	with: []*predicate{valueLike(requestHeader(":authority"), plainHost)},
	without: append(each(requestsNaming,
		func(name string) *predicate { return valueLike(requestHeader(name), anyValue) }),
		valueLike(requestHeader(attemptHeader), `|[^12]\C*|[12]\C+`)), // lateAttempt
	off: []string{notesFilter, denyFilter, requestIDFilter, namesFilter},
}

// importRoutes assert the caller in a header that no client can set, and remove headers that reveal internals.
func (b *builder) importRoutes(name string, i *model.Import) *routev3.RouteConfiguration {
	r := toCluster(name)
	r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: boolean(true)}
	routes := ordinaryOut.routes(retriedElsewhere(r, len(i.Remotes)))
	callers := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{i.Name: {
		Principals:  each(exactly(i.Callers...), authenticated),
		Permissions: []*rbacv3.Permission{andPermissions(nil)},
	}}}
	return &routev3.RouteConfiguration{
		Name:                   name,
		VirtualHosts:           []*routev3.VirtualHost{{Name: i.Host, Domains: everyHost, Matcher: routes}},
		RequestHeadersToAdd:    []*corev3.HeaderValueOption{overwrite(callerHeader, "%DOWNSTREAM_PEER_URI_SAN%")},
		RequestHeadersToRemove: requestsOwn,
		TypedPerFilterConfig:   policyConfig(nil, callers),
	}
}

// toPeers returns a cluster over all peers that serve an import, with the configured priorities and weights. Each
// peer's gateways have their own TLS context: that peer's roots, its gateways' exact identities, and its name for the
// export.
func (b *builder) toPeers(g *model.Gateway, name string, i *model.Import) *clusterv3.Cluster {
	d := i.AtGateways()
	c := cluster(name, nil)
	if d.Resolved {
		useEndpoints(c, b.view.Resolved[d.Set], g.Outer)
	} else {
		useEDS(c, d.Set)
	}
	// The only way to detect a dead path while data is in flight.
	c.UpstreamBindConfig.SocketOptions = append(keepalive(2, 1, 5), socketMark(wellknown.SocketMark))
	return shared(c, d, func(group model.Group) *corev3.TransportSocket {
		at := slices.IndexFunc(i.Remotes, func(r model.Remote) bool { return r.SNI == group.SNI })
		return b.peerTLS(g, i.Remotes[at].Peer, group.SNI)
	})
}

// boundaryConnectTimeout is how long, in milliseconds, a call waits for another gateway, including the handshake,
// before the next one is tried.
const boundaryConnectTimeout = 1000

func (b *builder) peerTLS(g *model.Gateway, p *model.Peer, name string) *corev3.TransportSocket {
	return clientTLS(g.Identity.String(), p.TrustDomain.Name(), exactly(p.GatewayIDs...), name, meshALPN)
}

// homeSNI is the server name with which our control plane checks the path to this gateway and back. It does so every
// other second, so it is not logged.
const homeSNI = "home"

// home leads our control plane, and nobody else, back to itself.
func (b *builder) home(g *model.Gateway) *listenerv3.FilterChain {
	return chain(homeSNI, onSNI(homeSNI), b.controlOnly(g),
		tcpProxy(homeSNI, peeringCluster, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE))
}

// controlToPeer lets our control plane, and nobody else, connect to the peer's, in their own TLS.
func (b *builder) controlToPeer(g *model.Gateway, p *model.Peer) *listenerv3.FilterChain {
	own := "control." + p.Name
	name := ingressName(p.Name, own)
	c := useEndpoints(cluster(name, nil), model.PairFamilies(model.Gateways(p.Addresses)), g.Outer)
	ejectUnreachable(c, time.Minute).TransportSocket = b.peerTLS(g, p, sni.Control(p.KnownAs, p.TrustDomain.Name()))
	b.add(ClusterType, name, c, []model.Ref{p.Ref})
	return chain(name, onSNI(own), b.controlOnly(g),
		tcpProxy(name, name, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE))
}

// probeToPeer lets our control plane, and nobody else, send probes through this gateway.
func (b *builder) probeToPeer(g *model.Gateway, p *model.Peer) *listenerv3.FilterChain {
	own, theirs := "probe."+p.Name, sni.Probe(p.KnownAs, p.TrustDomain.Name())
	name := ingressName(p.Name, own)
	c := useEndpoints(cluster(name, nil), model.PairFamilies(model.Gateways(p.Addresses)), g.Outer)
	ejectUnreachable(c, time.Minute).TransportSocket = b.peerTLS(g, p, theirs)
	useProbeSNI(c)
	b.add(ClusterType, name, c, []model.Ref{p.Ref})
	r := toCluster(name)
	r.GetRoute().Timeout = millis(15_000)
	r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: theirs}
	r.RequestHeadersToRemove = without(
		requestLeaks,
		wellknown.HeaderProbe,
	) // read by the cluster to select the server name
	m := egressLeg(inlineRoutes(httpManager(name, "", nil, nil), own, r), r)
	return chain(name, onSNI(own), b.controlOnly(g), managerFilter(m))
}

// bootstrap passes our control plane's own TLS through to a mesh that is not trusted yet, and only to that one address.
func (b *builder) bootstrap(g *model.Gateway, s model.Bootstrap) *listenerv3.FilterChain {
	eps := model.Gateways([]string{s.Address})
	if len(eps) == 0 {
		return nil
	}
	name := "bootstrap/" + s.ID
	b.add(ClusterType, name, useEndpoints(cluster(name, nil), eps, g.Outer), nil)
	return chain(
		name,
		onSNI("bootstrap."+s.ID),
		b.controlOnly(g),
		tcpProxy(name, name, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE),
	)
}

func (b *builder) controlOnly(g *model.Gateway) *corev3.TransportSocket {
	return serverTLS(g.Identity.String(), b.view.TrustDomain.Name(), exactly(g.Control.String()))
}
