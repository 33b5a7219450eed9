package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// maxOwnChains limits the chains of a port with many callers. Further callers share a chain, and a change of policy
// cuts all of those.
const maxOwnChains = 64

// tcpChains serve a raw TCP port behind mutual TLS. Each caller that policies name has its own chain, selected by
// callerSNI, so that a policy that denies one caller cuts only that caller's connections. All other admitted callers
// share one chain.
func (b *builder) tcpChains(
	l *listenerv3.Listener,
	name string,
	match *listenerv3.FilterChainMatch,
	w *model.Workload,
	in model.Inbound,
	server authz.Server,
) {
	ps := server.Read(in.Policies)
	a := admitted(server, ps)
	if len(a.everyone()) == 0 {
		return // nobody may call: the refusal chain applies
	}
	if a.whole && len(a.named) <= maxOwnChains {
		for _, caller := range a.named {
			own := proto.Clone(match).(*listenerv3.FilterChainMatch)
			own.ServerNames = []string{callerSNI(caller)}
			l.FilterChains = append(l.FilterChains, b.tcpChain(name+"<"+caller, own, w, in, exactly(caller), nil))
		}
	}
	var rbac []*listenerv3.Filter
	if !a.whole {
		rbac = networkRBAC(name, ps)
	}
	l.FilterChains = append(l.FilterChains, b.tcpChain(name, match, w, in, a.everyone(), rbac))
}

// tcpChain admits the callers that the handshake admits. If that is not decisive, network RBAC decides on the first
// byte, and the upstream must not send before.
func (b *builder) tcpChain(
	name string,
	match *listenerv3.FilterChainMatch,
	w *model.Workload,
	in model.Inbound,
	sans []*matcherv3.StringMatcher,
	filters []*listenerv3.Filter,
) *listenerv3.FilterChain {
	mode := tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
	if len(filters) > 0 {
		mode = tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA
	}
	tls := serverTLS(w.Identity.String(), b.view.TrustDomain.Name(), sans)
	port := inboundName(w, in.Port)
	p := tcpProxyTo(port, port, mode, unserved(w))
	p.MaxConnectAttempts, p.BackoffOptions = u32(1), nil // a running program accepts the first attempt
	return chain(name, match, tls, append(filters, newNetworkFilter(tcpFilter, anyOf(p)))...)
}
