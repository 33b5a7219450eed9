package agents

import (
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/vip"
)

// briefing is what the agents of one mesh need besides Envoy's configuration.
type briefing struct {
	mesh *model.Mesh
	*commonBriefing
}

// commonBriefing is the part that all agents share.
type commonBriefing struct {
	signing string
	suffix  string
	refused []string // suffixes
}

// newBriefing rebuilds the common part only if it has changed. before may be nil.
func newBriefing(before *briefing, mesh *model.Mesh) *briefing {
	if before != nil && view.SameGlobals(before.mesh, mesh) &&
		slices.Equal(before.mesh.Namespaces, mesh.Namespaces) {
		return &briefing{mesh, before.commonBriefing}
	}
	c := &commonBriefing{
		signing: signing(mesh.Roots[mesh.TrustDomain.Name()]),
		suffix:  model.ServiceSuffix(mesh.Domain),
	}
	for _, ns := range mesh.Namespaces {
		c.refused = append(c.refused, ns+"."+c.suffix)
	}
	return &briefing{mesh, c}
}

// of returns the instructions for one agent, mainly which names its workloads may resolve.
func (b *briefing) of(node string) *agentapi.Instructions {
	td := b.mesh.TrustDomain.Name()
	in := &agentapi.Instructions{
		TrustDomain: td, CertificateTTL: b.mesh.CertificateTTL, Roots: b.mesh.Roots[td], SigningRoot: b.signing,
		DNS: map[string]agentapi.DNSTable{}, Plaintext: map[string]agentapi.Plaintext{},
	}
	p := b.mesh.Proxies[node]
	if p == nil {
		return in
	}
	for _, w := range slices.Concat(p.Workloads, p.Sidecars) {
		t := agentapi.DNSTable{
			Hosts: map[string][]netip.Addr{}, RefusalSuffixes: b.refused, MeshSuffix: b.suffix,
			Forward: b.mesh.AllowAny,
		}
		if w.HasFamilyOf(vip.Refusal) {
			t.Refusal = vip.Refusal
		}
		if w.HasFamilyOf(vip.Refusal6) {
			t.Refusal6 = vip.Refusal6
		}
		for _, o := range w.Outbound {
			addHost(t.Hosts, w, o.Service)
		}
		in.DNS[w.ID.String()] = t
		in.Plaintext[w.ID.String()] = plaintextAt(w)
	}
	return in
}

// plaintextAt returns the ports at which a workload accepts plaintext.
func plaintextAt(w *model.Workload) agentapi.Plaintext {
	p := agentapi.Plaintext{Any: w.Mode != model.Strict}
	for _, in := range w.Inbound {
		if (in.Mode != model.Strict) != p.Any {
			p.Except = append(p.Except, in.Port)
		}
	}
	return p
}

// changed reports whether an agent's instructions may differ from those of the previous briefing.
func (b *briefing) changed(before *briefing, node string) bool {
	return before == nil || b.commonBriefing != before.commonBriefing || b.mesh.Proxies[node] == nil ||
		b.mesh.Proxies[node] != before.mesh.Proxies[node]
}

// signing returns the SHA-256 of the signing root, which is the first.
func signing(roots []byte) string {
	certs, err := peerrules.ParseRoots(roots)
	if err != nil {
		return ""
	}
	return spiffe.Fingerprint(certs[0])
}

// addHost resolves a service to the addresses that the workload can use.
func addHost(hosts map[string][]netip.Addr, w *model.Workload, svc *model.Service) {
	name := strings.ToLower(svc.Host)
	if hosts[name] != nil {
		return
	}
	for _, vip := range []netip.Addr{svc.VIP, svc.VIP6} {
		if vip.IsValid() && w.HasFamilyOf(vip) {
			hosts[name] = append(hosts[name], vip)
		}
	}
}
