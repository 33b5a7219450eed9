package envoy

import (
	"net/netip"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	origdstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/model"
)

// workload adds the two listeners of a workload, bound in its network namespace, with their clusters and routes.
func (b *builder) workload(w *model.Workload) {
	b.inbound(w)
	b.outbound(w)
}

// listener returns a new listener in a workload's network namespace that recovers the original destination of
// redirected connections. It has an IPv4 address and, if the workload has IPv6, an IPv6 address; otherwise binding
// would fail.
func (b *builder) listener(
	name string,
	w *model.Workload,
	at [2]string,
	port uint32,
	more ...*listenerv3.ListenerFilter,
) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:    name,
		Address: inside(w.Netns, at[0], port),
		ListenerFilters: append(
			[]*listenerv3.ListenerFilter{listenerFilter("original_dst", &origdstv3.OriginalDst{})},
			more...),

		PerConnectionBufferLimitBytes: u32(bufferLimit),
	}
	if w.HasFamilyOf(netip.IPv6Unspecified()) {
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: inside(w.Netns, at[1], port)}}
	}
	return l
}

func listenerFilter(name string, config proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name:       name,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: anyOf(config)},
	}
}

func tlsInspector() *listenerv3.ListenerFilter {
	return listenerFilter("tls_inspector", &tlsinspectorv3.TlsInspector{})
}

// tlsInspectorBut inspects connections to all ports except some.
func tlsInspectorBut(ports []uint16) *listenerv3.ListenerFilter {
	f := tlsInspector()
	var off []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		off = append(
			off,
			&listenerv3.ListenerFilterChainMatchPredicate{
				Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
					DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
				},
			},
		)
	}
	switch len(off) {
	case 0:
	case 1:
		f.FilterDisabled = off[0]
	default:
		f.FilterDisabled = &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
				OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: off},
			},
		}
	}
	return f
}

const connectAttempts = 4

// tcpProxy forwards data. Behind TLS it connects upstream only after the handshake has admitted the caller, so a
// refused caller receives no data, even from a server that speaks first.
func tcpProxy(
	name, cluster string,
	connect tcpproxyv3.UpstreamConnectMode,
	log ...*accesslogv3.AccessLog,
) *listenerv3.Filter {
	return newNetworkFilter(tcpFilter, anyOf(tcpProxyTo(name, cluster, connect, log...)))
}

func tcpProxyTo(
	name, cluster string,
	connect tcpproxyv3.UpstreamConnectMode,
	log ...*accesslogv3.AccessLog,
) *tcpproxyv3.TcpProxy {
	p := &tcpproxyv3.TcpProxy{
		StatPrefix: name, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		UpstreamConnectMode: connect, MaxConnectAttempts: u32(connectAttempts), IdleTimeout: millis(0), AccessLog: log,
		// Two failures eject an endpoint; the third attempt must come after that.
		BackoffOptions: &corev3.BackoffStrategy{BaseInterval: millis(20), MaxInterval: millis(100)},
	}
	if connect != tcpproxyv3.UpstreamConnectMode_IMMEDIATE {
		p.MaxEarlyDataBytes = u32(64 << 10)
	}
	return p
}

// chain returns a filter chain, with TLS if given, in which case it requires a client certificate.
func chain(
	name string,
	match *listenerv3.FilterChainMatch,
	tls *corev3.TransportSocket,
	filters ...*listenerv3.Filter,
) *listenerv3.FilterChain {
	fc := &listenerv3.FilterChain{Name: name, FilterChainMatch: match}
	addNetworkFilters(fc, filters...)
	if tls != nil {
		behindTLS(fc, tls)
	}
	return fc
}

func behindTLS(fc *listenerv3.FilterChain, tls *corev3.TransportSocket) {
	addNetworkFilters(fc, oneName(fc)...)
	withTLS(fc, tls)
}

// withTLS adds TLS to a chain, with a timeout for incomplete handshakes.
func withTLS(fc *listenerv3.FilterChain, tls *corev3.TransportSocket) {
	fc.TransportSocket = tls
	fc.TransportSocketConnectTimeout = millis(10_000)
}
