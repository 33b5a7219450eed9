package envoy

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/wellknown"
)

// outbound adds what a workload may call: one chain per Outbound, one cluster per destination, and a refusal with a
// reason for everything else.
func (b *builder) outbound(w *model.Workload) {
	name := outboundListener(w)
	l := b.listener(name, w, [2]string{"127.0.0.1", "::1"}, wellknown.OutboundPort, b.introduction(w)...)
	l.Metadata = metadata(map[string]string{callingWorkload: w.ID.String(), callingIdentity: w.Identity.String()})
	l.DefaultFilterChain = b.unlisted(w)
	var refs []model.Ref
	var reachable []model.Outbound
	for _, o := range w.Outbound {
		refs = append(refs, o.By...)
		if match := toService(w, o); match != nil {
			reachable = append(reachable, o)
			l.FilterChains = append(l.FilterChains, chain(chainName(o), match, nil, b.call(w, o)))
		}
	}
	b.destinations(w, reachable)
	if b.view.AllowAny {
		l.FilterChains = append(l.FilterChains, b.refuseReserved(w, l.FilterChains)...)
	}
	b.add(ListenerType, name, l, refs)
}

// unlisted forwards calls to unlisted addresses, or refuses them.
func (b *builder) unlisted(w *model.Workload) *listenerv3.FilterChain {
	if !b.view.AllowAny {
		return b.refused(outboundRefusal)
	}
	passthrough := w.ID.String() + ">any"
	c := cluster(passthrough, w)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	b.add(ClusterType, passthrough, c, nil)
	return chain(passthrough, nil, nil, outboundTCP(w, passthrough))
}

// outboundTCP forwards a workload's connections to a cluster, and logs those without a reachable destination.
func outboundTCP(w *model.Workload, cluster string) *listenerv3.Filter {
	return newNetworkFilter(tcpFilter, anyOf(outboundTCPTo(w, cluster)))
}

// outboundTCPTo returns the configuration of outboundTCP.
func outboundTCPTo(w *model.Workload, cluster string) *tcpproxyv3.TcpProxy {
	return tcpProxyTo(cluster, cluster, tcpproxyv3.UpstreamConnectMode_IMMEDIATE,
		tcpLog(outboundLog, unreached, workloadTag(w.ID.String())))
}

// refusalText does not reveal whether the destination exists.
func refusalText(workload, identity string) string {
	return "isthmus: " + workload + " (" + identity +
		") may not call %REQ(:AUTHORITY)% at %DOWNSTREAM_LOCAL_ADDRESS%: " +
		"no service that lists this workload as a caller answers there. If it should, its owner must allow " +
		"the caller (AuthorizationPolicy, FederatedImport callers) or list the address (ServiceEntry); " +
		"see isthmus describe %REQ(:AUTHORITY)%.\n"
}

// noLongerListed is the reply on an open connection whose destination's cluster has been removed.
var noLongerListed = &hcmv3.ResponseMapper{
	Filter: flagged("NC"), StatusCode: u32(403),
	BodyFormatOverride: bodyFormat(refusalText(ofListener(callingWorkload), ofListener(callingIdentity))),
}

// refuseReserved refuses calls to addresses that must not be forwarded even if unlisted addresses may be called: the
// mesh's virtual addresses, which DNS returns for refused names, and Envoy's own. A program that connects to this
// listener's own port has that port as its destination; forwarding would loop forever.
//
// Envoy matches the port first, and then only among that port's chains. So each port that has a chain needs one of
// these.
func (b *builder) refuseReserved(
	w *model.Workload,
	listed []*listenerv3.FilterChain,
) []*listenerv3.FilterChain {
	var ranges []*corev3.CidrRange
	for _, p := range []netip.Prefix{
		vip.Range, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"),
		vip.Range6, netip.MustParsePrefix("::/127"),
	} {
		if w.HasFamilyOf(p.Addr()) {
			ranges = append(ranges, cidr(p))
		}
	}
	refused := func(suffix string, match *listenerv3.FilterChainMatch) *listenerv3.FilterChain {
		fc := b.refused(outboundRefusal)
		fc.Name, fc.FilterChainMatch = "refused"+suffix, match
		return fc
	}
	out := []*listenerv3.FilterChain{
		refused("", &listenerv3.FilterChainMatch{PrefixRanges: ranges}),
		refused(":itself", &listenerv3.FilterChainMatch{DestinationPort: u32(wellknown.OutboundPort)}),
	}
	ports := map[uint32]bool{}
	for _, fc := range listed {
		ports[fc.GetFilterChainMatch().GetDestinationPort().GetValue()] = true
	}
	for _, p := range slices.Sorted(maps.Keys(ports)) {
		out = append(
			out,
			refused(
				":"+strconv.Itoa(int(p)),
				&listenerv3.FilterChainMatch{DestinationPort: u32(p), PrefixRanges: ranges},
			),
		)
	}
	return out
}

// call returns the filter that leads an Outbound's calls to its destinations.
func (b *builder) call(w *model.Workload, o model.Outbound) *listenerv3.Filter {
	switch sole := o.Sole(); {
	case !o.Port.Protocol.IsHTTP():
		return b.connections(w, o)
	case sole != nil && !sole.Changing:
		return b.sharedManager(sole)
	}
	return b.ownManager(w, o)
}

// destinations adds a cluster for each destination of a workload's Outbounds. Several routes may lead to one.
func (b *builder) destinations(w *model.Workload, reachable []model.Outbound) {
	all, refs := map[string]*model.Destination{}, map[string][]model.Ref{}
	for _, o := range reachable {
		for _, d := range o.Destinations() {
			name := destinationName(w, d)
			all[name], refs[name] = d, slices.Concat(refs[name], o.By, d.Service.Refs)
		}
	}
	for name, d := range all {
		switch {
		case len(d.Groups) == 0:
		case toOwnPrograms(d):
			b.addPrograms(b.toEndpoints(name, w, d), d.Port.Protocol, refs[name])
		default:
			b.add(ClusterType, name, b.target(name, w, d), refs[name])
		}
	}
}

// connections forwards raw connections to the destinations of the first route without a Match, by weight.
func (b *builder) connections(w *model.Workload, o model.Outbound) *listenerv3.Filter {
	at := slices.IndexFunc(o.Routes, func(r *model.Route) bool { return r.Match == nil })
	if at < 0 {
		return b.closed(w, "no route takes raw connections")
	}
	r := o.Routes[at]
	switch to := sharesOf(w, r); len(to) {
	case 0:
		return b.closed(w, absence(r))
	case 1:
		return outboundTCP(w, to[0].cluster)
	default:
		p := outboundTCPTo(w, chainOf(w, o))
		all := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, s := range to {
			all.Clusters = append(all.Clusters,
				&tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: s.cluster, Weight: s.weight})
		}
		p.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: all}
		return newNetworkFilter(tcpFilter, anyOf(p))
	}
}

// metadata returns metadata in Isthmus's namespace.
func metadata(values map[string]string) *corev3.Metadata {
	fields := map[string]*structpb.Value{}
	for key, value := range values {
		fields[key] = structpb.NewStringValue(value)
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{hostTags: {Fields: fields}}}
}

// toOwnPrograms reports whether a service's programs are called directly, without an Envoy in front.
func toOwnPrograms(d *model.Destination) bool {
	return d.LeadsOnlyTo(model.OwnEndpoints) && !d.Port.MTLS
}

// passUnchanged configures a manager to forward requests of the workload's program as they are: headers are not
// removed, merged or validated, and nothing is answered on the server's behalf.
func passUnchanged(m *hcmv3.HttpConnectionManager) {
	m.RequestHeadersTimeout = noLimit()
	m.NormalizePath = boolean(false)
	m.MergeSlashes = false
	m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_KEEP_UNCHANGED
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
}

// closed closes connections without data and logs the reason.
func (b *builder) closed(w *model.Workload, why string) *listenerv3.Filter {
	return newNetworkFilter(tcpFilter, anyOf(&tcpproxyv3.TcpProxy{
		StatPrefix: nobody, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: ours.named(nobody)},
		AccessLog: []*accesslogv3.AccessLog{tcpLog(outboundLog, nil, workloadTag(w.ID.String()),
			tag{name: wellknown.TagAbsent, value: strings.ReplaceAll(why, "%", "%%")})},
	}))
}

// toService matches the addresses of a service that the workload can use; nil if there are none.
func toService(w *model.Workload, o model.Outbound) *listenerv3.FilterChainMatch {
	m := &listenerv3.FilterChainMatch{DestinationPort: u32(uint32(o.Port.Number))}
	for _, vip := range []netip.Addr{o.Service.VIP, o.Service.VIP6} {
		if vip.IsValid() && w.HasFamilyOf(vip) {
			m.PrefixRanges = append(m.PrefixRanges, cidr(netip.PrefixFrom(vip, vip.BitLen())))
		}
	}
	for _, p := range o.Service.Prefixes {
		if w.HasFamilyOf(p.Addr()) {
			m.PrefixRanges = append(m.PrefixRanges, cidr(p))
		}
	}
	if len(m.PrefixRanges) == 0 {
		return nil
	}
	return m
}

// target returns the cluster of a destination that consists of Envoys: in front of the service's own endpoints, the
// mesh's gateways, or both.
func (b *builder) target(name string, w *model.Workload, d *model.Destination) *clusterv3.Cluster {
	switch {
	case d.LeadsOnlyTo(model.OwnEndpoints):
		return b.toEndpoints(name, w, d)
	case d.LeadsOnlyTo(model.OwnGateways):
		return ejectUnreachable(b.toGateways(name, w, d), 10*time.Second)
	}
	return b.toSeveral(name, w, d)
}

// absentRoute answers calls to an import without a live source, with the reason. The name keeps its address and its
// connections stay open, so that clients can continue once there is a source.
func absentRoute(r *model.Route) *routev3.Route {
	why := absence(r)
	return &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Metadata: &corev3.Metadata{
			FilterMetadata: map[string]*structpb.Struct{hostTags: noted(wellknown.TagAbsent, why)},
		},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 503, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: why}},
		}},
	}
}

// absence returns why none of a route's destinations can serve.
func absence(r *model.Route) string {
	var why []string
	for _, d := range r.To {
		why = append(why, d.Absent...)
	}
	return "nobody serves this import now: " + strings.Join(why, "; ")
}

func noted(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

// toSeveral leads to several groups of endpoints. It health-checks the gateways among them, to learn whether one of
// their peers can serve before a call finds out.
func (b *builder) toSeveral(name string, w *model.Workload, d *model.Destination) *clusterv3.Cluster {
	c := shared(
		useEDS(cluster(name, w), d.Set),
		d,
		func(g model.Group) *corev3.TransportSocket {
			if g.Name == model.OwnEndpoints {
				return b.endpointSocket(w, d)
			}
			return b.gatewaySocket(w, d)
		},
	)
	if d.Port.Protocol.IsHTTP() {
		b.setHTTPVersion(c, d.Port.Protocol)
	}
	return c
}

// toEndpoints leads to the service's own endpoints.
func (b *builder) toEndpoints(name string, w *model.Workload, d *model.Destination) *clusterv3.Cluster {
	c := cluster(name, w)
	if d.Resolved {
		useEndpoints(c, b.view.Resolved[d.Set], w.Addrs)
	} else {
		useEDS(c, b.view.SetOf(d))
	}
	c.TransportSocket = b.endpointSocket(w, d)
	if b.nearby(d) {
		c.TransportSocket = internalSocket(c.TransportSocket)
	}
	if d.Port.Protocol.IsHTTP() {
		b.setHTTPVersion(c, d.Port.Protocol)
	}
	if d.Port.MTLS {
		setMeshLimits(c)
	}
	return c
}

// endpointSocket returns the mutual TLS context for a port's servers, or nil if they accept only plaintext.
func (b *builder) endpointSocket(w *model.Workload, d *model.Destination) *corev3.TransportSocket {
	switch {
	case !d.Port.MTLS:
		return nil
	case d.Port.Protocol.IsHTTP():
		return b.meshTLS(w, d.Port.Identities, "")
	}
	return b.meshTLS(w, d.Port.Identities, callerSNI(w.Identity.String()))
}

// toGateways leads to the mesh's own gateways, which forward the call to peers.
func (b *builder) toGateways(name string, w *model.Workload, d *model.Destination) *clusterv3.Cluster {
	c := useEDS(cluster(name, w), d.Set)
	c.TransportSocket = b.gatewaySocket(w, d)
	if d.Port.Protocol.IsHTTP() {
		b.setHTTPVersion(c, d.Port.Protocol)
	}
	return c
}

func (b *builder) gatewaySocket(w *model.Workload, d *model.Destination) *corev3.TransportSocket {
	return b.meshTLS(w, b.view.Gateways, egressSNI(d.Called(), d.Port.Protocol, w.Identity.String()))
}

func (b *builder) meshTLS(w *model.Workload, servers []string, sni string) *corev3.TransportSocket {
	return clientTLS(w.Identity.String(), b.view.TrustDomain.Name(), exactly(servers...), sni, meshALPN)
}
