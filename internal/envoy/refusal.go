package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	upstreamproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"isthmus.dev/isthmus/internal/wellknown"
)

// A caller that is refused outside TLS gets a reason if it speaks HTTP. Otherwise the connection is closed without
// data, which the caller would mistake for the server's. Only the first bytes show which it is. A workload's listener
// cannot wait for them, since an allowed server may speak first, so refused connections are handed to an internal
// listener that does.

// refusal is one such internal listener, shared by all workloads of a proxy.
type refusal struct {
	name   string
	log    string // the access log's name
	text   string // reply over HTTP
	reason string // for the log, if no reply is sent
}

// Filter state passed to the internal listener: the workload concerned, its identity, and the requested server name.
const (
	toldWorkload = 0xE0
	toldIdentity = 0xE1
)

var (
	outboundRefusal = refusal{
		name: "refused-outbound", log: wellknown.LogOutbound,
		text:   refusalText(told(callingWorkload), told(callingIdentity)),
		reason: "no service there lists the caller",
	}
	plaintextRefusal = refusal{
		name: "refused-inbound", log: wellknown.LogInbound,
		text: "isthmus: " + told(callingWorkload) + " accepts only mutual TLS from inside its mesh, on the ports of " +
			"its services; this connection to %DOWNSTREAM_LOCAL_ADDRESS% was refused. Call through the mesh, by the " +
			"service's name.\n",
		reason: "not mutual TLS, or not a port of this workload",
	}
)

// told formats a value that the internal listener was given.
func told(key string) string {
	return "%FILTER_STATE(envoy.network.proxy_protocol.tlv:FIELD:" + key + ")%"
}

// refused returns a chain that hands connections to the refusing listener.
func (b *builder) refused(r refusal) *listenerv3.FilterChain {
	return chain("", nil, nil, b.builtin(tcpFilter, r.name))
}

// filter returns the filter of such a chain. A failure to hand over is logged like other refusals.
func (r refusal) filter(named naming) *tcpproxyv3.TcpProxy {
	tell := func(kind uint32, key string) *corev3.TlvEntry {
		return &corev3.TlvEntry{Type: kind, FormatString: bodyFormat(ofListener(key))}
	}
	return &tcpproxyv3.TcpProxy{
		StatPrefix: r.name, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: named(r.name)},
		IdleTimeout:       noLimit(),
		ProxyProtocolTlvs: []*corev3.TlvEntry{tell(toldWorkload, callingWorkload), tell(toldIdentity, callingIdentity)},
		AccessLog:         []*accesslogv3.AccessLog{tcpLog(r.log, unreached, workloadTag(ofListener(callingWorkload)))},
	}
}

func (r refusal) cluster(named naming) *clusterv3.Cluster {
	c := cluster(named(r.name), nil)
	c.UpstreamBindConfig = nil
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: c.Name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{at(&corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{
				EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
					AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: c.Name},
				},
			}})},
		}},
	}
	c.TransportSocket = &corev3.TransportSocket{Name: "proxy_protocol", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: anyOf(&upstreamproxyv3.ProxyProtocolUpstreamTransport{
			Config: &corev3.ProxyProtocolConfig{
				Version:         corev3.ProxyProtocolConfig_V2,
				PassThroughTlvs: &corev3.ProxyProtocolPassThroughTLVs{TlvType: []uint32{toldWorkload, toldIdentity}},
			},
			TransportSocket: &corev3.TransportSocket{
				Name:       "raw",
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: anyOf(&rawbufferv3.RawBuffer{})},
			},
		}),
	}}
	return c
}

// silentClose is the chain for clients that do not speak HTTP.
const silentClose = "wordless"

func (r refusal) listener(named naming) *listenerv3.Listener {
	whose := workloadTag(told(callingWorkload))
	raw := chain(silentClose, nil, nil, newNetworkFilter(closeFilter, anyOf(&directv3.Config{})))
	http := chain(
		"http",
		&listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}},
		nil,
		managerFilter(r.manager(whose)),
	)
	hears := func(kind uint32, key string) *proxyprotocolv3.ProxyProtocol_Rule {
		return &proxyprotocolv3.ProxyProtocol_Rule{
			TlvType: kind, OnTlvPresent: &proxyprotocolv3.ProxyProtocol_KeyValuePair{Key: key},
		}
	}
	return &listenerv3.Listener{
		Name: named(r.name),
		ListenerSpecifier: &listenerv3.Listener_InternalListener{
			InternalListener: &listenerv3.Listener_InternalListenerConfig{},
		},
		ListenerFilters: []*listenerv3.ListenerFilter{
			listenerFilter("proxy_protocol", &proxyprotocolv3.ProxyProtocol{
				Rules: []*proxyprotocolv3.ProxyProtocol_Rule{
					hears(toldWorkload, callingWorkload), hears(toldIdentity, callingIdentity),
				},
				DisallowedVersions: []corev3.ProxyProtocolConfig_Version{corev3.ProxyProtocolConfig_V1},
				TlvLocation:        proxyprotocolv3.ProxyProtocol_FILTER_STATE,
			}),
			tlsInspector(),
			listenerFilter("http_inspector", &httpinspectorv3.HttpInspector{}),
		},
		// Soon close connections of clients that wait for the server to speak first.
		ListenerFiltersTimeout: millis(500), ContinueOnListenerFiltersTimeout: true,
		PerConnectionBufferLimitBytes: u32(bufferLimit),
		FilterChains:                  []*listenerv3.FilterChain{http}, DefaultFilterChain: raw,
		AccessLog: []*accesslogv3.AccessLog{
			tcpLog(
				r.log,
				when(`xds.filter_chain_name == "`+silentClose+`"`),
				whose,
				tag{name: wellknown.TagRefused, value: r.reason},
				tag{name: wellknown.TagName, value: "%REQUESTED_SERVER_NAME%"},
			),
		},
	}
}

// manager answers every request with 403 and the reason.
func (r refusal) manager(whose tag) *hcmv3.HttpConnectionManager {
	m := httpManager(r.name, "", nil, refusals(r.log, whose))
	m.UpgradeConfigs[0].Filters = m.HttpFilters // nothing is forwarded
	m.RequestHeadersTimeout = millis(500)
	m.CommonHttpProtocolOptions.IdleTimeout = millis(500)
	// A client that is admitted in the meantime must not stay here, so each connection serves one request.
	m.CommonHttpProtocolOptions.MaxRequestsPerConnection = u32(1)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		VirtualHosts: []*routev3.VirtualHost{{
			Name: r.name, Domains: []string{"*"}, // all hosts are refused alike
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
					Status: 403, BodyFormat: bodyFormat(r.text),
				}},
			}},
		}},
	}}
	return m
}
