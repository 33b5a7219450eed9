package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/wellknown"
)

// ingress adds what peers may reach: one chain per peer and server name, which admits only that peer's roots and its
// gateways' exact identities.
func (b *builder) ingress(g *model.Gateway) {
	l := boundary(wellknown.IngressListener, g.Outer, wellknown.FederationPort, ingressLog)
	var refs []model.Ref
	for _, e := range g.Federation.Exports {
		fc := b.exportChain(g, e)
		l.FilterChains = append(l.FilterChains, withHealth(g, fc, fc.Name)...)
		withConnectionShare(g, fc)
		refs = append(refs, e.Ref, e.Peer.Ref)
	}
	for _, p := range g.Federation.Peers {
		l.FilterChains = append(
			l.FilterChains,
			atMost(maxControlConnections, b.peerControl(g, p)),
			atMost(maxControlConnections, b.probes(g, p)),
		)
		refs = append(refs, p.Ref)
	}
	for _, i := range g.Federation.Invites {
		l.FilterChains = append(l.FilterChains, atMost(maxControlConnections, b.invitation(g, i)))
	}
	if len(l.FilterChains) > 0 {
		b.add(ListenerType, l.Name, l, refs)
	}
}

// exportChain admits one peer to one exported service, and makes a new call inside the mesh.
func (b *builder) exportChain(g *model.Gateway, e *model.Export) *listenerv3.FilterChain {
	name := ingressName(e.Peer.Name, e.SNI)
	tls := serverTLS(g.Identity.String(), e.Peer.TrustDomain.Name(), exactly(e.Peer.GatewayIDs...))
	c := setMeshLimits(withoutMergeWindow(useEDS(cluster(name, nil), e.Set())))
	if e.Port.MTLS {
		c.TransportSocket = clientTLS(
			g.Identity.String(),
			b.view.TrustDomain.Name(),
			exactly(e.Port.Identities...),
			"",
			meshALPN,
		)
	}
	refs := append([]model.Ref{e.Ref, e.Peer.Ref}, e.Service.Refs...)
	if !e.Port.Protocol.IsHTTP() {
		b.add(ClusterType, name, c, refs)
		log := tcpLog(ingressLog, nil, tagged(tag{name: "peer", value: e.Peer.Name}, e.Name, e.SNI)...)
		return chain(
			name,
			onSNI(e.SNI),
			tls,
			tcpProxy(name, name, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE, log),
		)
	}
	if e.Port.MTLS {
		b.add(ClusterType, name, b.setHTTPVersion(c, e.Port.Protocol), refs)
	} else {
		b.addPrograms(c, e.Port.Protocol, refs)
	}
	b.add(RouteType, name, b.exportRoutes(name, e), refs)
	filters := append(boundaryFilters(foreignIsthmusHeaders), innerNamesOfAnswers(e.Service, b.view.Domain))
	m := withLocalReplies(
		boundaryManager(name, filters),
		"the boundary of "+b.view.TrustDomain.Name(),
		refused("its FederatedExport to this peer lists no such caller, method and path"),
	)
	m.AccessLog = append(m.AccessLog, crossings(ingressLog, e.Peer.Name, "-", e.Name, e.SNI))
	return chain(name, onSNI(e.SNI), tls, managerFilter(m))
}

// exportRoutes rename the export's alias to the service, and remove headers that reveal internals of either mesh.
func (b *builder) exportRoutes(name string, e *model.Export) *routev3.RouteConfiguration {
	routes, drop := []*routev3.Route{toCluster(name)}, []string(nil)
	if !e.Port.MTLS { // it comes from the application, not from an Envoy of this mesh
		routes = toPrograms(name, e.Port.Protocol)
		drop = []string{wellknown.HeaderUnavailable}
	}
	for _, r := range routes {
		r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: e.Service.Host}
	}
	offered := &routev3.VirtualHost{
		Name: e.SNI, Domains: []string{e.SNI}, IncludeRequestAttemptCount: e.Port.MTLS,
		Matcher: ordinaryIn(e.Peer).routes(retried(e.Port.MTLS, routes...)),
	}
	return &routev3.RouteConfiguration{
		Name: name, VirtualHosts: []*routev3.VirtualHost{
			offered,
			probeHost(sni.Probe(e.Peer.Name, b.view.TrustDomain.Name()), e.Peer),
		},
		RequestHeadersToRemove: requestsOwn, ResponseHeadersToRemove: drop,
		MostSpecificHeaderMutationsWins: true, // the probe route's header must win over the removal
		TypedPerFilterConfig:            policyConfig(nil, exportPolicy(e)),
	}
}

// segment matches a path segment of a SPIFFE ID (SPIFFE-ID §2.2), as far as namespaces and service accounts need it.
const segment = "[A-Za-z0-9][A-Za-z0-9._-]*"

// oneCaller folds repeated headers into one line. Envoy's RBAC compares each line by itself, so a second assertion
// would pass beside a valid one. A line with two values matches no rule. An ordinary request has one value
// (ordinaryIn).
var oneCaller = folded(callerHeader, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)

// ordinaryIn describes requests from a peer's gateway. Their Host is plain: it equals the virtual host's domain.
func ordinaryIn(p *model.Peer) crossing {
	return crossing{
		with: []*predicate{valueLike(requestHeader(callerHeader), callerOf(p))},
		off:  []string{denyFilter, requestIDFilter}, changed: oneCaller,
	}
}

// callerOf returns an expression for a single asserted caller in the peer's trust domain.
func callerOf(p *model.Peer) string {
	return "spiffe://" + quote(p.TrustDomain.Name()) + "/ns/" + segment + "/sa/" + segment
}

// exportPolicy requires that the asserted caller is in the peer's trust domain and that a rule matches.
func exportPolicy(e *model.Export) *rbacv3.RBAC {
	out := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{}}
	inPeer := &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: &routev3.HeaderMatcher{
		Name:                 callerHeader,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex(callerOf(e.Peer))},
	}}}
	for n, r := range e.Rules {
		principals := []*rbacv3.Principal{inPeer}
		if len(r.Callers) > 0 {
			principals = append(principals, orPrincipals(each(r.Callers, func(m model.Match) *rbacv3.Principal {
				return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: header(callerHeader, m)}}
			})))
		}
		methods := each(r.Methods, func(m string) model.Match { return model.Match{Value: m} })
		out.Policies[policyName(e.Name, n)] = &rbacv3.Policy{
			Principals: []*rbacv3.Principal{andPrincipals(principals)},
			Permissions: []*rbacv3.Permission{
				permission(authz.Operation(model.Operation{Methods: methods, Paths: r.Paths})),
			},
		}
	}
	return out
}

// peerControl passes the TLS between the peer's control plane and ours through, so the gateway can neither read nor
// modify it.
func (b *builder) peerControl(g *model.Gateway, p *model.Peer) *listenerv3.FilterChain {
	host := sni.Control(p.Name, b.view.TrustDomain.Name())
	// The chain includes the root, for a peer that knows only its fingerprint.
	tls := serverTLS(g.Identity.String()+wellknown.WithRootSuffix, p.TrustDomain.Name(), exactly(p.GatewayIDs...))
	fc := passThrough(ingressName(p.Name, host), host)
	behindTLS(fc, tls)
	return fc
}

// probes answers probes of the peer's gateway.
func (b *builder) probes(g *model.Gateway, p *model.Peer) *listenerv3.FilterChain {
	host := sni.Probe(p.Name, b.view.TrustDomain.Name())
	name := ingressName(p.Name, host)
	m := inlineRoutes(httpManager(name, "", nil, nil), host, probeRoute(p))
	return chain(name, onSNI(host), serverTLS(g.Identity.String(), p.TrustDomain.Name(), exactly(p.GatewayIDs...)),
		managerFilter(m))
}

// invitation lets a mesh that knows only our root's fingerprint complete a handshake, with a server name that only the
// invited mesh knows, and passes the TLS of its control plane through to ours.
func (b *builder) invitation(g *model.Gateway, i model.Invite) *listenerv3.FilterChain {
	tls := tlsSocket(&tlsv3.DownstreamTlsContext{
		DisableStatefulSessionResumption: true,
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		},
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: tls13(),
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{
				fromAgent(g.Identity.String() + wellknown.WithRootSuffix),
			},
		},
	})
	fc := passThrough(ingressName("invite", i.ID), sni.Invite(i.ID, b.view.TrustDomain.Name()))
	withTLS(fc, tls)
	return fc
}

// passThrough returns a chain that passes bytes through to our control plane.
func passThrough(name, host string) *listenerv3.FilterChain {
	return chain(name, onSNI(host), nil,
		tcpProxy(name, peeringCluster, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE))
}

// only routes one method and path to the control plane, with a header that names the caller.
func only(method, path string, who *corev3.HeaderValueOption) *routev3.Route {
	r := toCluster(controlCluster)
	r.Match = &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_Path{Path: path},
		Headers:       []*routev3.HeaderMatcher{header(":method", model.Match{Value: method})},
	}
	r.GetRoute().Timeout = millis(15_000)
	r.RequestHeadersToAdd = []*corev3.HeaderValueOption{who}
	r.RequestHeadersToRemove = without(requestLeaks, who.Header.Key)
	r.ResponseHeadersToRemove = leaks
	return r
}
