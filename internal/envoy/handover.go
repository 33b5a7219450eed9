package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/set_filter_state/v3"
	internalupstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
)

// Hand-over: a call between two workloads of one Envoy uses an internal listener instead of passing through the kernel
// twice. The traffic is unchanged: the same mutual TLS, terminated by copies of the network listener's filter chains,
// so that all checks and logs are the same. Only the addresses must be passed explicitly, since there are none inside
// Envoy.

// Metadata that Envoy's original_dst filter reads on an internal listener: the destination and source addresses.
const (
	originalDst    = "envoy.filters.listener.original_dst"
	originalRemote = originalDst + ".remote_ip"
)

// internalListener returns a copy of an inbound listener for connections from inside the proxy.
func internalListener(inbound *listenerv3.Listener, w *model.Workload) *listenerv3.Listener {
	l := proto.Clone(inbound).(*listenerv3.Listener)
	l.Name = handOverListener(w.ID)
	l.Address, l.AdditionalAddresses, l.SocketOptions = nil, nil, nil
	l.ListenerSpecifier = &listenerv3.Listener_InternalListener{
		InternalListener: &listenerv3.Listener_InternalListenerConfig{},
	}
	return l
}

// handedEndpoint returns an endpoint that the proxy serves itself.
func handedEndpoint(e model.Endpoint) *endpointv3.LbEndpoint {
	address := netip.AddrPortFrom(e.Addr, e.Port).String()
	ep := at(
		&corev3.Address{
			Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
				AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{
					ServerListenerName: handOverListener(e.By),
				}, EndpointId: address,
			}},
		},
	)
	ep.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		originalDst: {Fields: map[string]*structpb.Value{"local": structpb.NewStringValue(address)}},
	}}
	return ep
}

// internalSocket passes the destination address along with the data. For endpoints elsewhere it behaves like the socket
// that it wraps.
func internalSocket(tls *corev3.TransportSocket) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: "internal",
		ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: anyOf(&internalupstreamv3.InternalUpstreamTransport{
				TransportSocket: tls,
				PassthroughMetadata: []*internalupstreamv3.InternalUpstreamTransport_MetadataValueSource{{
					Name: originalDst, Kind: hostMetadata,
				}},
			}),
		},
	}
}

// nearby reports whether calls to a destination may stay inside the proxy.
func (b *builder) nearby(d *model.Destination) bool { return b.view.SetOf(d).Proxy != "" }

// introduction passes the source address of a call that stays inside the proxy: the caller's first registered address,
// whatever it binds to. All calls carry it, so that a server that becomes local drains no connections.
func (b *builder) introduction(w *model.Workload) []*listenerv3.ListenerFilter {
	if !b.view.HandOver || len(w.Addrs) == 0 {
		return nil
	}
	caller := &statevaluev3.FilterStateValue{
		Key: &statevaluev3.FilterStateValue_ObjectKey{ObjectKey: originalRemote},
		Value: &statevaluev3.FilterStateValue_FormatString{
			FormatString: bodyFormat(netip.AddrPortFrom(w.Addrs[0], 0).String()),
		},
		SharedWithUpstream: statevaluev3.FilterStateValue_ONCE,
	}
	return []*listenerv3.ListenerFilter{listenerFilter("introduce", &setstatev3.Config{
		OnAccept: []*statevaluev3.FilterStateValue{caller},
	})}
}
