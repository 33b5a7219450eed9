package meshd

import (
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/store"
)

// instructions are what an agent needs beside Envoy's configuration: above all, which names its workloads may resolve.
func instructions(mesh *model.Mesh, node string) *agentapi.Instructions {
	td := mesh.TrustDomain.Name()
	in := &agentapi.Instructions{TrustDomain: td, CertificateTTL: mesh.CertificateTTL, Roots: mesh.Roots[td], SigningRoot: signing(mesh.Roots[td]), DNS: map[string]agentapi.DNSTable{}}
	p := mesh.Proxies[node]
	if p == nil {
		return in
	}
	suffix := "svc." + mesh.Domain
	var refused []string
	for _, ns := range mesh.Namespaces {
		refused = append(refused, ns+"."+suffix)
	}
	for _, w := range slices.Concat(p.Workloads, p.Sidecars) {
		t := agentapi.DNSTable{Hosts: map[string][]netip.Addr{}, RefusalSuffixes: refused, MeshSuffix: suffix}
		if w.Speaks(store.RefusalVIP) {
			t.Refusal = store.RefusalVIP
		}
		if w.Speaks(store.RefusalVIP6) {
			t.Refusal6 = store.RefusalVIP6
		}
		for _, o := range w.Outbound {
			addHost(t.Hosts, w, o.Service)
		}
		in.DNS[w.ID.String()] = t
	}
	return in
}

// signing is the SHA-256 of the root that signs: the first.
func signing(roots []byte) string {
	certs, err := peerrules.ParseRoots(roots)
	if err != nil {
		return ""
	}
	return peerrules.Fingerprint(certs[0])
}

// addHost resolves a service to addresses that the workload can call.
func addHost(hosts map[string][]netip.Addr, w *model.Workload, svc *model.Service) {
	name := strings.ToLower(svc.Host)
	if hosts[name] != nil {
		return
	}
	for _, vip := range []netip.Addr{svc.VIP, svc.VIP6} {
		if vip.IsValid() && w.Speaks(vip) {
			hosts[name] = append(hosts[name], vip)
		}
	}
}
