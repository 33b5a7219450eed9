package stories

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Sketch summarises a mesh as text: listeners, callers, and what crosses to peers.
func Sketch(m *model.Mesh) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mesh %s, trust domain %s, names under %s, root namespace %s, certificates for %s", m.Name,
		m.TrustDomain.Name(), m.Domain, m.RootNamespace, m.CertificateTTL)
	if m.AllowAny {
		b.WriteString(", unlisted addresses may be called")
	}
	fmt.Fprintf(&b, "\nnamespaces %s\n", strings.Join(m.Namespaces, " "))
	for _, id := range sorted(m.Workloads, func(a, b model.WorkloadID) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		w := m.Workloads[id]
		fmt.Fprintf(&b, "workload %s on %s is %s\n", id, w.Node, w.Identity)
		for _, in := range w.Inbound {
			fmt.Fprintf(&b, "  listens on %d: %s, %s, deny %s, allow %s\n", in.Port, in.Protocol, in.Mode,
				names(in.Policies.Deny), allows(in.Policies))
		}
		for _, o := range w.Outbound {
			fmt.Fprintf(&b, "  may call %s:%d (%s)\n", o.Service.Host, o.Port.Number, o.Port.Protocol)
		}
	}
	for _, name := range sorted(m.Peers, strings.Compare) {
		p := m.Peers[name]
		fmt.Fprintf(&b, "peer %s, trust domain %s, live %t\n", name, p.TrustDomain.Name(), p.Live)
	}
	for _, e := range m.Exports {
		fmt.Fprintf(&b, "export %s to %s as %s, %d rules\n", e.Name, e.Peer.Name, e.SNI, len(e.Rules))
	}
	for _, i := range m.Invites {
		fmt.Fprintf(&b, "invitation %s for %s\n", i.ID, i.Peer)
	}
	for _, s := range m.Bootstraps {
		fmt.Fprintf(&b, "acceptance %s under way at %s\n", s.ID, s.Address)
	}
	for _, i := range m.Imports {
		fmt.Fprintf(&b, "import %s:%d (%s) for %s\n", i.Host, i.Port, i.Protocol, strings.Join(i.Callers, ", "))
		for _, r := range i.Remotes {
			fmt.Fprintf(&b, "  from %s weight %d priority %d\n", r.SNI, r.Weight, r.Priority)
		}
		if i.Local != nil {
			fmt.Fprintf(&b, "  from local endpoints weight %d priority %d\n", i.Local.Weight, i.Local.Priority)
		}
	}
	return b.String()
}

func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func allows(ps model.Policies) string {
	if len(ps.Allow) == 0 && ps.DefaultAllow {
		return "all"
	}
	return names(ps.Allow)
}

func names(ps []*model.Policy) string {
	if len(ps) == 0 {
		return "none"
	}
	var out []string
	for _, p := range ps {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}
