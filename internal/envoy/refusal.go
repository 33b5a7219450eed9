package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	origdstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	internalupstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Who is refused outside TLS is told why if it speaks HTTP, and else sees its connection close without a byte: it would
// take a word of ours for the server's. Which of the two it is only its first bytes say. The listener of a workload
// cannot wait for them, since a server that it may call may speak first; so a refused connection goes on to an internal
// listener that does.

// refusal is one such listener, shared by all workloads of a proxy.
type refusal struct {
	name   string
	log    string // of refusals
	text   string // for HTTP
	reason string // for the log, where nothing is said
}

// What the internal listener is told of a connection: whose workload was asked for or asks, by which identity, and
// which name TLS asked for.
const (
	refusedName     = "isthmus.name"
	refusedWorkload = "isthmus.workload"
	refusedIdentity = "isthmus.identity"
)

var (
	outboundRefusal = refusal{
		name: "refused/outbound", log: wellknown.LogOutbound,
		text:   mayNotCall(stateOf(refusedWorkload), stateOf(refusedIdentity)),
		reason: "no service there lists the caller",
	}
	plaintextRefusal = refusal{
		name: "refused/inbound", log: wellknown.LogInbound,
		text: "isthmus: " + stateOf(
			refusedWorkload,
		) + " accepts only mutual TLS from inside its mesh, on the ports of its " +
			"services; this connection to %DOWNSTREAM_LOCAL_ADDRESS% was refused. Call through the mesh, by the " +
			"service's name.\n",
		reason: "not mutual TLS, or not a port of this workload",
	}
)

func stateOf(key string) string { return "%FILTER_STATE(" + key + ":PLAIN)%" }

// refused hands a connection to the listener that refuses it.
func (r refusal) refused(name string, w *model.Workload) *listenerv3.FilterChain {
	tell := newNetworkFilter(tellFilter, anyOf(&setstatev3.Config{OnNewConnection: []*statevaluev3.FilterStateValue{
		passedOn(originalLocal, "", "%DOWNSTREAM_LOCAL_ADDRESS%"),
		passedOn(originalRemote, "", "%DOWNSTREAM_REMOTE_ADDRESS%"),
		passedOn(refusedWorkload, stringState, w.ID.String()),
		passedOn(refusedIdentity, stringState, w.Identity.String()),
		passedOn(refusedName, stringState, "%REQUESTED_SERVER_NAME%"),
	}}))
	return chain(name, nil, nil, tell, tcpProxy(name, r.name, tcpproxyv3.UpstreamConnectMode_IMMEDIATE))
}

// stringState makes a plain string of a value in Envoy's filter state.
const stringState = "envoy.string"

// passedOn is a value that goes along with a connection inside Envoy.
func passedOn(key, factory, value string) *statevaluev3.FilterStateValue {
	return &statevaluev3.FilterStateValue{
		Key: &statevaluev3.FilterStateValue_ObjectKey{ObjectKey: key}, FactoryKey: factory,
		Value:              &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat(value)},
		SharedWithUpstream: statevaluev3.FilterStateValue_ONCE,
	}
}

// refusals are the internal listeners, and what leads there: the same for all proxies.
func (b *builder) refusals() {
	for _, r := range refusalResources {
		b.out[r.Type] = append(b.out[r.Type], r)
	}
}

var refusalResources = []*Resource{
	newResource(ListenerType, outboundRefusal.name, outboundRefusal.listener(), nil),
	newResource(ClusterType, outboundRefusal.name, outboundRefusal.cluster(), nil),
	newResource(ListenerType, plaintextRefusal.name, plaintextRefusal.listener(), nil),
	newResource(ClusterType, plaintextRefusal.name, plaintextRefusal.cluster(), nil),
}

func (r refusal) cluster() *clusterv3.Cluster {
	c := cluster(r.name, nil)
	c.UpstreamBindConfig = nil
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: r.name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{at(&corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{
				EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
					AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: r.name},
				},
			}})},
		}},
	}
	c.TransportSocket = &corev3.TransportSocket{Name: "internal", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: anyOf(&internalupstreamv3.InternalUpstreamTransport{TransportSocket: &corev3.TransportSocket{
			Name: "raw", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: anyOf(&rawbufferv3.RawBuffer{})},
		}}),
	}}
	return c
}

// wordless is the chain of those who do not speak HTTP.
const wordless = "wordless"

func (r refusal) listener() *listenerv3.Listener {
	whose := workloadTag(stateOf(refusedWorkload))
	raw := chain(wordless, nil, nil, newNetworkFilter(closeFilter, anyOf(&directv3.Config{})))
	http := chain(
		"http",
		&listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}},
		nil,
		managerFilter(r.manager(whose)),
	)
	return &listenerv3.Listener{
		Name: r.name,
		ListenerSpecifier: &listenerv3.Listener_InternalListener{
			InternalListener: &listenerv3.Listener_InternalListenerConfig{},
		},
		ListenerFilters: []*listenerv3.ListenerFilter{
			listenerFilter("original_dst", &origdstv3.OriginalDst{}),
			listenerFilter("http_inspector", &httpinspectorv3.HttpInspector{}),
		},
		// Who waits for the server to speak first is hung up on soon.
		ListenerFiltersTimeout: millis(500), ContinueOnListenerFiltersTimeout: true,
		PerConnectionBufferLimitBytes: u32(bufferLimit),
		FilterChains:                  []*listenerv3.FilterChain{http}, DefaultFilterChain: raw,
		AccessLog: []*accesslogv3.AccessLog{
			tcpLog(
				r.log,
				when(`xds.filter_chain_name == "`+wordless+`"`),
				whose,
				tag{name: wellknown.TagRefused, value: r.reason},
				tag{name: wellknown.TagName, value: stateOf(refusedName)},
			),
		},
	}
}

// manager answers every request with 403 and the reason.
func (r refusal) manager(whose tag) *hcmv3.HttpConnectionManager {
	m := httpManager(r.name, "", nil, refusals(r.log, whose))
	m.UpgradeConfigs[0].Filters = m.HttpFilters // nothing is passed on
	m.RequestHeadersTimeout = millis(500)
	m.CommonHttpProtocolOptions.IdleTimeout = millis(500)
	// A client that is let in meanwhile shall not stay here: each request is for a connection of its own.
	m.CommonHttpProtocolOptions.MaxRequestsPerConnection = u32(1)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		VirtualHosts: []*routev3.VirtualHost{{
			Name: r.name, Domains: []string{"*"}, // every name is refused alike
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
