package envoy

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/vip"
)

// outbound is what a workload may call: one chain and one cluster a destination, and a refusal that says why for the rest.
func (b *builder) outbound(w *model.Workload) {
	name := outboundListener(w)
	l := b.listener(name, w, [2]string{"127.0.0.1", "::1"}, agentapi.OutboundPort)
	l.DefaultFilterChain = b.unlisted(w, name)
	var refs []model.Ref
	for _, o := range w.Outbound {
		b.destination(l, w, o)
		refs = append(refs, o.By...)
	}
	if b.view.AllowAny {
		l.FilterChains = append(l.FilterChains, b.neverOutside(w, name, l.FilterChains)...)
	}
	b.add(ListenerType, name, l, refs)
}

// unlisted passes a call on, or refuses it.
func (b *builder) unlisted(w *model.Workload, name string) *listenerv3.FilterChain {
	if b.view.AllowAny {
		passthrough := w.ID.String() + ">any"
		c := cluster(passthrough, w)
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		b.add(ClusterType, passthrough, c, nil)
		return chain(passthrough, nil, nil, tcpProxy(passthrough, passthrough, tcpproxyv3.UpstreamConnectMode_IMMEDIATE))
	}
	return outboundRefusal.refused(name+"/refused", w)
}

// mayNotCall tells nobody whether the destination exists.
func mayNotCall(workload, identity string) string {
	return "isthmus: " + workload + " (" + identity + ") may not call %REQ(:AUTHORITY)% at %DOWNSTREAM_LOCAL_ADDRESS%: " +
		"no service that lists this workload as a caller answers there. If it should, its owner must allow the caller " +
		"(AuthorizationPolicy, FederatedImport callers) or list the address (ServiceEntry); see isthmus access.\n"
}

// noLongerListed is what a connection that is still open hears once its destination's cluster has been taken away.
func noLongerListed(w *model.Workload) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter: flagged("NC"), StatusCode: u32(403),
		BodyFormatOverride: bodyFormat(mayNotCall(w.ID.String(), w.Identity.String())),
	}
}

// neverOutside are what a call to an unlisted address is refused at even where such calls pass: the mesh's virtual addresses, at
// which refused names are answered, and what means Envoy itself. A program that connects to this listener's own port is "going
// to" that port, and passed on would come back for ever.
//
// Envoy looks for the port first, and then among that port's chains only; so each port that has a chain needs one of these.
func (b *builder) neverOutside(w *model.Workload, name string, listed []*listenerv3.FilterChain) []*listenerv3.FilterChain {
	var ranges []*corev3.CidrRange
	for _, p := range []netip.Prefix{
		vip.Range, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"), vip.Range6, netip.MustParsePrefix("::/127"),
	} {
		if w.Speaks(p.Addr()) {
			ranges = append(ranges, cidr(p))
		}
	}
	refused := func(suffix string, match *listenerv3.FilterChainMatch) *listenerv3.FilterChain {
		fc := outboundRefusal.refused(name+"/refused"+suffix, w)
		fc.FilterChainMatch = match
		return fc
	}
	out := []*listenerv3.FilterChain{
		refused("", &listenerv3.FilterChainMatch{PrefixRanges: ranges}),
		refused(":itself", &listenerv3.FilterChainMatch{DestinationPort: u32(agentapi.OutboundPort)}),
	}
	ports := map[uint32]bool{}
	for _, fc := range listed {
		ports[fc.GetFilterChainMatch().GetDestinationPort().GetValue()] = true
	}
	for _, p := range slices.Sorted(maps.Keys(ports)) {
		out = append(out, refused(":"+strconv.Itoa(int(p)), &listenerv3.FilterChainMatch{DestinationPort: u32(p), PrefixRanges: ranges}))
	}
	return out
}

// targets of a destination: clusters with weights; several with failover hang under one aggregate.
type target struct {
	cluster string
	weight  uint32
}

func (b *builder) destination(l *listenerv3.Listener, w *model.Workload, o model.Outbound) {
	match := toService(w, o)
	if match == nil {
		return // without an address nothing can be meant for it
	}
	name := outboundName(w, o)
	refs := append(slices.Clone(o.By), o.Service.Refs...)
	ts := b.targets(w, o, name, refs)
	if len(ts) == 0 {
		return
	}
	if o.Port.Protocol.IsHTTP() {
		l.FilterChains = append(l.FilterChains, b.httpDestination(w, o, name, match, ts, refs))
		return
	}
	l.FilterChains = append(l.FilterChains, chain(name, match, nil, append(b.introduced(w, o), weightedTCP(name, ts))...))
}

// httpDestination sends each request by itself to an endpoint, and one that no server has begun to another one. What a request may
// look like the server decides, who has the policy: here it passes as it is, whatever Host it names, since the address has said
// where it goes. Routes that change, as those of imports do, come by themselves, so that no connection is drained.
func (b *builder) httpDestination(w *model.Workload, o model.Outbound, name string, match *listenerv3.FilterChainMatch, ts []target,
	refs []model.Ref,
) *listenerv3.FilterChain {
	m := withLocalReplies(httpManager(name, name, nil, localRefusals(outboundLog, workloadTag(w.ID.String()))), o.Service.Host, "")
	m.LocalReplyConfig.Mappers = append([]*hcmv3.ResponseMapper{noLongerListed(w)}, m.LocalReplyConfig.Mappers...)
	asItIs(m)
	m.HttpProtocolOptions.DefaultHostForHttp_10 = o.Service.Host
	rc := outboundRoutes(name, o, ts)
	if o.Import == nil {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc}
	} else {
		b.add(RouteType, name, rc, refs)
	}
	return chain(name, match, nil, append(b.introduced(w, o), managerFilter(m))...)
}

// asItIs passes on what a program of the workload wrote: nothing is cut, merged, decided or answered on the server's behalf.
func asItIs(m *hcmv3.HttpConnectionManager) {
	m.NormalizePath = boolean(false)
	m.MergeSlashes = false
	m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_KEEP_UNCHANGED
	m.StripPortMode = nil
	m.StripTrailingHostDot = false
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	m.UseRemoteAddress = boolean(false)
}

func weightedTCP(name string, ts []target) *listenerv3.Filter {
	if len(ts) == 1 {
		return tcpProxy(name, ts[0].cluster, tcpproxyv3.UpstreamConnectMode_IMMEDIATE)
	}
	p := &tcpproxyv3.TcpProxy{StatPrefix: name, MaxConnectAttempts: u32(3), IdleTimeout: millis(0)}
	wc := &tcpproxyv3.TcpProxy_WeightedCluster{}
	for _, t := range ts {
		wc.Clusters = append(wc.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.cluster, Weight: t.weight})
	}
	p.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: wc}
	return networkFilter("tcp", anyOf(p))
}

func outboundRoutes(name string, o model.Outbound, ts []target) *routev3.RouteConfiguration {
	if o.Import == nil && !o.Port.MTLS {
		return outboundTo(name, o, toPrograms(ts[0].cluster, o.Port.Protocol)...)
	}
	r := toCluster(ts[0].cluster)
	if len(ts) > 1 {
		wc := &routev3.WeightedCluster{}
		for _, t := range ts {
			wc.Clusters = append(wc.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: t.cluster, Weight: u32(t.weight)})
		}
		r.GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: wc}
	}
	return outboundTo(name, o, r)
}

func outboundTo(name string, o model.Outbound, routes ...*routev3.Route) *routev3.RouteConfiguration {
	for _, r := range routes {
		retrySafely(r)
	}
	return &routev3.RouteConfiguration{
		Name: name, ResponseHeadersToRemove: []string{agentapi.HeaderUnavailable},
		RequestHeadersToRemove: []string{"x-envoy-internal", upgradeHeader}, // which Envoy adds
		VirtualHosts:           []*routev3.VirtualHost{{Name: o.Service.Host, Domains: []string{"*"}, Routes: routes}},
	}
}

// toService matches the addresses of a service that the workload can call; nil when there are none.
func toService(w *model.Workload, o model.Outbound) *listenerv3.FilterChainMatch {
	m := &listenerv3.FilterChainMatch{DestinationPort: u32(uint32(o.Port.Number))}
	for _, vip := range []netip.Addr{o.Service.VIP, o.Service.VIP6} {
		if vip.IsValid() && w.Speaks(vip) {
			m.PrefixRanges = append(m.PrefixRanges, cidr(netip.PrefixFrom(vip, vip.BitLen())))
		}
	}
	for _, p := range o.Service.Prefixes {
		if w.Speaks(p.Addr()) {
			m.PrefixRanges = append(m.PrefixRanges, cidr(p))
		}
	}
	if len(m.PrefixRanges) == 0 {
		return nil
	}
	return m
}

// targets makes the clusters of a destination: the service's own endpoints, the mesh's gateways for what peers serve, or both.
func (b *builder) targets(w *model.Workload, o model.Outbound, name string, refs []model.Ref) []target {
	if o.Import == nil {
		if c := b.toEndpoints(name, w, o); o.Port.MTLS {
			b.add(ClusterType, name, c, refs)
		} else {
			b.addPrograms(c, o.Port.Protocol, refs)
		}
		return []target{{name, 1}}
	}
	remote, local := name+"/peers", name+"/local"
	hasRemote, hasLocal := len(o.Import.Remotes) > 0, o.Import.Local != nil
	if hasRemote {
		c := b.toGateways(remote, w, o)
		if hasLocal {
			quickToEject(c)
		} else {
			avoidSilent(c)
		}
		b.add(ClusterType, remote, c, refs)
	}
	if hasLocal {
		c := b.toEndpoints(local, w, o)
		if hasRemote {
			quickToEject(c)
		}
		b.add(ClusterType, local, c, refs)
	}
	switch {
	case !hasLocal && !hasRemote:
		return nil
	case !hasLocal:
		return []target{{remote, 1}}
	case !hasRemote:
		return []target{{local, 1}}
	}
	return b.mixed(o.Import, name, local, remote, refs)
}

// mixed shares between local endpoints and peers by weight at equal priority, else lets the one stand in for the other.
func (b *builder) mixed(i *model.Import, name, local, remote string, refs []model.Ref) []target {
	first := i.Remotes[0].Priority
	if i.Local.Priority == first {
		var weight uint32
		for _, r := range i.Remotes {
			if r.Priority == first {
				weight += r.Weight
			}
		}
		return []target{{local, i.Local.Weight}, {remote, weight}}
	}
	order := []string{local, remote}
	if i.Local.Priority > first {
		order = []string{remote, local}
	}
	b.add(ClusterType, name, aggregate(name, order), refs)
	return []target{{name, 1}}
}

// toEndpoints reaches the service's own endpoints.
func (b *builder) toEndpoints(name string, w *model.Workload, o model.Outbound) *clusterv3.Cluster {
	c := cluster(name, w)
	if o.Service.DNS {
		static(c, b.view.DNSEndpoints[o.Set()], w.Addrs)
	} else {
		bySet(c, b.view.SetOf(o))
	}
	if o.Port.MTLS {
		sni := ""
		if !o.Port.Protocol.IsHTTP() {
			sni = callerSNI(w.Identity.String())
		}
		c.TransportSocket = b.meshTLS(w, o.Port.Identities, sni)
	}
	if b.nearby(o) {
		c.TransportSocket = internalSocket(c.TransportSocket)
	}
	if o.Port.Protocol.IsHTTP() {
		speaking(c, o.Port.Protocol)
	}
	return c
}

// toGateways reaches the mesh's own gateways, which carry the call to the peers.
func (b *builder) toGateways(name string, w *model.Workload, o model.Outbound) *clusterv3.Cluster {
	c := bySet(cluster(name, w), b.view.Gateways.Set)
	c.TransportSocket = b.meshTLS(w, b.view.Gateways.IDs, egressSNI(o.Import, w.Identity.String()))
	if o.Port.Protocol.IsHTTP() {
		speaking(c, o.Port.Protocol)
	}
	return c
}

func (b *builder) meshTLS(w *model.Workload, servers []string, sni string) *corev3.TransportSocket {
	return clientTLS(w.Identity.String(), b.view.TrustDomain.Name(), exactly(servers...), sni, meshALPN)
}
