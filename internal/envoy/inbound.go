package envoy

import (
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// meshHandshakeTimeout limits a caller's TLS handshake at a workload, in milliseconds. It is longer than at a gateway,
// since thousands of callers in the mesh may connect at once.
const meshHandshakeTimeout = 20_000

// inbound adds what a workload accepts: one chain per port, and a refusal of everything else, including plaintext.
func (b *builder) inbound(w *model.Workload) {
	name := inboundListener(w)
	l := b.listener(name, w, [2]string{"0.0.0.0", "::"}, wellknown.InboundPort)
	l.SocketOptions = keepaliveOptions()
	l.Metadata = metadata(map[string]string{callingWorkload: w.ID.String()})
	l.DefaultFilterChain = b.refused(plaintextRefusal)
	if len(w.Inbound) > 0 { // else everybody is handed over to the refusal, which looks and logs for itself
		l.ListenerFilters = append(l.ListenerFilters, tlsInspectorBut(plaintextPorts(w)))
		l.ListenerFiltersTimeout = millis(10_000)
		l.AccessLog = connectionRefusals(inboundLog, workloadTag(w.ID.String()))
	}
	refs := slices.Clone(w.Refs)
	for _, in := range w.Inbound {
		b.inboundPort(l, w, in)
		refs = append(refs, in.Refs...)
	}
	b.add(ListenerType, name, l, refs)
	if b.view.Called(w) {
		handed := internalListener(l, w)
		b.add(ListenerType, handed.Name, handed, refs)
	}
}

func (b *builder) inboundPort(l *listenerv3.Listener, w *model.Workload, in model.Inbound) {
	name := inboundName(w, in.Port)
	if in.Mode != model.Disable {
		match := onPort(in.Port, "tls")
		if in.Mode == model.Permissive {
			match.ApplicationProtocols = []string{meshALPN} // an application's own TLS passes below, like plaintext
		}
		b.inboundChain(l, name, match, w, in, true)
	}
	if in.Mode != model.Strict {
		b.inboundChain(l, name+"/plaintext", onPort(in.Port, ""), w, in, false)
	}
	if in.Mode == model.Permissive && !in.Protocol.IsHTTP() {
		// Envoy does not fall back from "TLS with another ALPN" to "any transport", hence a separate chain.
		b.inboundChain(l, name+"/tls", onPort(in.Port, "tls"), w, in, false)
	}
	c := cluster(name, w)
	c.UpstreamBindConfig = dialFrom(w, wellknown.InsideMark)
	useEndpoints(c, localEndpoint(w, in.Port), w.Addrs)
	b.addPrograms(c, in.Protocol, in.Refs)
}

func onPort(port uint16, transport string) *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{DestinationPort: u32(uint32(port)), TransportProtocol: transport}
}

// localEndpoint returns the workload's own address. Programs that listen only on loopback are not exposed.
func localEndpoint(w *model.Workload, port uint16) []model.Endpoint {
	out := model.EndpointsAt(w.Addrs, port)
	out = out[:min(len(out), 1)]
	for i := range out {
		out[i].Healthy = true
	}
	return out
}

func (b *builder) inboundChain(
	l *listenerv3.Listener,
	name string,
	match *listenerv3.FilterChainMatch,
	w *model.Workload,
	in model.Inbound,
	mtls bool,
) {
	td := b.view.TrustDomain.Name()
	server := authz.Server{HTTP: in.Protocol.IsHTTP(), TrustDomain: td, Gateways: b.view.Gateways}
	target := inboundName(w, in.Port)
	if server.HTTP {
		refused := refusals
		if !mtls {
			refused = refusalsAtClient
		}
		m := withLocalReplies(httpManager(name, name, inboundFilters(),
			refused(inboundLog, workloadTag(w.ID.String()), assertedTag)), w.ID.String(), policyReplies...)
		boundaryReplies(m, w.ID.String(), "the boundary of "+td)
		if len(in.Hosts) > 0 {
			m.HttpProtocolOptions.DefaultHostForHttp_10 = in.Hosts[0]
		}
		if manyLookalikes(policyHeaders(in.Policies)) {
			m.CommonHttpProtocolOptions.HeadersWithUnderscoresAction = corev3.HttpProtocolOptions_REJECT_REQUEST
		}
		if mtls {
			behindEnvoys(m)
		} else {
			m.AccessLog = append(m.AccessLog, plaintextCalls(w, in, httpLog)...)
		}
		fc := chain(name, match, nil, managerFilter(m))
		if mtls {
			behindTLS(fc, serverTLS(w.Identity.String(), td, inDomain(td)))
			fc.TransportSocketConnectTimeout = millis(meshHandshakeTimeout)
		}
		l.FilterChains = append(l.FilterChains, fc)
		b.add(RouteType, name, inboundRoutes(name, target, in, server), append(policyRefs(in.Policies), in.Refs...))
		return
	}
	if mtls {
		b.tcpChains(l, name, match, w, in, server)
		return
	}
	fc := chain(name, match, nil)
	mode := tcpproxyv3.UpstreamConnectMode_IMMEDIATE
	ps := server.Read(in.Policies)
	if ps.Decide(authz.Request{}).Decision != authz.Allowed { // the policies depend on the caller
		addNetworkFilters(fc, networkRBAC(name, ps)...)
		mode = tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA // the upstream must not send before policy has decided
	}
	proxy := tcpProxyTo(name, target, mode, plaintextCalls(w, in, tcpLog)...)
	if len(proxy.AccessLog) > 0 { // log at the start of the connection, not only at its end
		proxy.AccessLogOptions = &tcpproxyv3.TcpProxy_TcpAccessLogOptions{FlushAccessLogOnConnected: true}
	}
	addNetworkFilters(fc, newNetworkFilter(tcpFilter, anyOf(proxy)))
	l.FilterChains = append(l.FilterChains, fc)
}

// plaintextCalls logs each call without mutual TLS to a PERMISSIVE port, so that it is known which callers STRICT would
// refuse.
func plaintextCalls(
	w *model.Workload, in model.Inbound, log func(string, *accesslogv3.AccessLogFilter, ...tag) *accesslogv3.AccessLog,
) []*accesslogv3.AccessLog {
	if in.Mode != model.Permissive {
		return nil
	}
	return []*accesslogv3.AccessLog{log(wellknown.LogPlaintext, nil, workloadTag(w.ID.String()))}
}

// plaintextPorts returns the ports without TLS. Their listener does not wait for the client's first bytes, so the
// server may speak first.
func plaintextPorts(w *model.Workload) []uint16 {
	var out []uint16
	for _, in := range w.Inbound {
		if in.Mode == model.Disable {
			out = append(out, in.Port)
		}
	}
	return out
}

func policyRefs(ps model.Policies) []model.Ref {
	var out []model.Ref
	for _, p := range append(slices.Clone(ps.Deny), ps.Allow...) {
		out = append(out, p.Ref)
	}
	return out
}

func networkRBAC(name string, ps authz.Policies) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	if deny := denyRBAC(ps); deny != nil {
		out = append(
			out,
			newNetworkFilter(denyFilter, anyOf(&networkrbacv3.RBAC{StatPrefix: name + "/deny", Rules: deny})),
		)
	}
	if allow := allowRBAC(ps); allow != nil {
		out = append(
			out,
			newNetworkFilter(allowFilter, anyOf(&networkrbacv3.RBAC{StatPrefix: name + "/allow", Rules: allow})),
		)
	}
	return out
}
