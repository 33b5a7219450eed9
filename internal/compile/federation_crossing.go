package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	security "istio.io/client-go/pkg/apis/security/v1"
)

// findCrossing explains why calls between meshes would fail although the objects are in effect: the peer does not offer
// what an import asks for, or the workload refuses what an export offers. As with findUnmatched, most of it may resolve
// itself, so these findings are shown on request only. mesh must be compiled from snap.
func findCrossing(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	return inquire(snap, mesh, func(q *inquiry) {
		if len(snapshot.Of[*v1alpha1.MeshPeer](q.cfg)) == 0 {
			return
		}
		x := newCrossing(q)
		for _, i := range snapshot.Of[*v1alpha1.FederatedImport](q.cfg) {
			key := snapshot.KeyOf(i)
			q.guarded(key, nil, func() { x.importing(key, i) })
		}
		for _, e := range snapshot.Of[*v1alpha1.FederatedExport](q.cfg) {
			key := snapshot.KeyOf(e)
			q.guarded(key, nil, func() { x.exporting(key, e) })
		}
		x.rawPolicies()
	})
}

// inquiry collects findings that are shown on request and are not part of a compilation.
type inquiry struct {
	report
	snap *snapshot.Snapshot
	cfg  *snapshot.Config
	mesh *model.Mesh // compiled from snap
}

func inquire(snap *snapshot.Snapshot, mesh *model.Mesh, look func(*inquiry)) []finding.Finding {
	if snap.Config == nil || mesh == nil {
		return nil
	}
	q := &inquiry{report{origins: snap.Config}, snap, snap.Config, mesh}
	look(q)
	finding.Sort(q.findings)
	return q.findings
}

type crossing struct {
	*inquiry
	accounts map[string]bool // "<namespace>/<service account>" of workloads
	gateways []string        // SPIFFE IDs, sorted
}

func newCrossing(q *inquiry) *crossing {
	mesh, x := q.mesh, &crossing{inquiry: q, accounts: map[string]bool{}}
	for _, w := range mesh.Workloads {
		ns, sa, _ := spiffe.WorkloadParts(w.Identity)
		x.accounts[ns+"/"+sa] = true
	}
	for _, p := range mesh.Proxies {
		if p.Gateway != nil {
			x.gateways = append(x.gateways, p.Gateway.Identity.String())
		}
	}
	slices.Sort(x.gateways)
	x.gateways = slices.Compact(x.gateways)
	return x
}

// Passes returns the exports through which some call of their peer may pass. Only these are offered.
func Passes(mesh *model.Mesh) []*model.Export {
	x := newCrossing(&inquiry{mesh: mesh})
	var out []*model.Export
	for _, e := range mesh.Exports {
		if (len(e.Rules) > 0 || !e.Port.Protocol.IsHTTP()) && x.admitted(e) {
			out = append(out, e)
		}
	}
	return out
}

func (x *crossing) importing(key snapshot.Key, i *v1alpha1.FederatedImport) {
	at := slices.IndexFunc(x.mesh.Imports, func(m *model.Import) bool { return m.Name == key.Namespace+"/"+key.Name })
	if at < 0 {
		return // another finding says why it is ignored
	}
	for n, from := range i.Spec.From {
		x.offered(key, fmt.Sprintf("spec.from[%d]", n), i, from)
	}
	if len(x.accounts) > 0 {
		for n, v := range i.Spec.Callers {
			x.importCaller(key, fmt.Sprintf("spec.callers[%d]", n), i.Namespace, v)
		}
	}
	if m := x.mesh.Imports[at]; len(m.Remotes) == 0 && m.Local == nil {
		x.find(key, "ISM0333", "spec.from", "nobody can serve it now: "+x.absent(i))
	}
}

// absent says why no source of an import can serve.
func (x *crossing) absent(i *v1alpha1.FederatedImport) string {
	var why []string
	for _, from := range i.Spec.From {
		switch peer := x.mesh.Peers[from.Peer]; {
		case weight(from.Weight) == 0:
			why = append(why, "peer "+from.Peer+" has the weight 0")
		case peer == nil && !x.hasPeer(from.Peer):
			why = append(why, "there is no peer "+from.Peer)
		case peer == nil || !peer.Live:
			why = append(why, "nothing passes between this mesh and peer "+from.Peer)
		default: // another finding says why
			why = append(why, "the source at peer "+from.Peer+" is not in force")
		}
	}
	if i.Spec.Local != nil && weight(i.Spec.Local.Weight) == 0 {
		why = append(why, "the local endpoints have the weight 0")
	}
	return strings.Join(why, ", ")
}

func (x *crossing) hasPeer(name string) bool {
	return snapshot.Named[*v1alpha1.MeshPeer](x.cfg.Objects, "", name) != nil
}

// offered compares one source of an import with the peer's catalogue.
func (x *crossing) offered(key snapshot.Key, field string, i *v1alpha1.FederatedImport, from v1alpha1.ImportFrom) {
	name, ns := cmp.Or(from.Name, i.Name), cmp.Or(from.Namespace, i.Namespace)
	if !x.hasPeer(from.Peer) {
		x.otherPeer(key, field+".peer", from.Peer, name, ns)
		return
	}
	peer, catalogue := x.mesh.Peers[from.Peer], x.snap.Peers[from.Peer].Catalogue
	if peer == nil || !peer.Live || catalogue == nil {
		return
	}
	at := slices.IndexFunc(catalogue.Services,
		func(s snapshot.OfferedService) bool { return s.Name == name && s.Namespace == ns })
	if at < 0 {
		remedy := "isthmus catalogue " + from.Peer + " lists what it offers; ask its administrators to export this"
		if near := nearOffer(catalogue.Services, name, ns); near != "" {
			remedy = "did you mean " + near + "? Otherwise " + remedy
		}
		x.find(key, "ISM0325", field+".name",
			fmt.Sprintf("peer %s does not offer %s/%s, so it serves nothing", from.Peer, ns, name), remedy)
		return
	}
	theirs, ours := model.ParseProtocol(catalogue.Services[at].Protocol),
		model.ParseProtocol(cmp.Or(string(i.Spec.Protocol), "HTTP"))
	if theirs.IsHTTP() != ours.IsHTTP() {
		x.find(key, "ISM0326", "spec.protocol",
			fmt.Sprintf("peer %s offers %s/%s as %s and the import says %s: no call succeeds", from.Peer, ns, name,
				theirs, ours),
			"write protocol: "+theirs.String())
	}
}

// nearOffer returns the offer that was probably meant: the same name in another namespace, or a similar name.
func nearOffer(offers []snapshot.OfferedService, name, namespace string) string {
	var all, same []string
	for _, s := range offers {
		all = append(all, s.Namespace+"/"+s.Name)
		if s.Name == name {
			same = append(same, s.Namespace+"/"+s.Name)
		}
	}
	if len(same) > 0 && len(same) <= 3 {
		return strings.Join(same, " or ")
	}
	return finding.Nearest(namespace+"/"+name, all)
}

// otherPeer looks for the service at other peers: the peer may have been peered again under another name.
func (x *crossing) otherPeer(key snapshot.Key, field, missing, name, ns string) {
	var offering, names []string
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](x.cfg) {
		names = append(names, p.Name)
		c := x.snap.Peers[p.Name].Catalogue
		if c != nil && slices.ContainsFunc(c.Services,
			func(s snapshot.OfferedService) bool { return s.Name == name && s.Namespace == ns }) {
			offering = append(offering, p.Name)
		}
	}
	if len(offering) == 0 {
		if near := finding.Nearest(missing, names); near != "" {
			offering = []string{near}
		}
	}
	if len(offering) > 0 {
		x.find(key, "ISM0334", field, fmt.Sprintf("there is no peer %q", missing),
			"did you mean "+strings.Join(offering, " or ")+"?")
	}
}

func (x *crossing) importCaller(key snapshot.Key, field, namespace, account string) {
	if !strings.Contains(account, "/") {
		account = namespace + "/" + account
	}
	if x.accounts[account] {
		return
	}
	remedy := "isthmus services -o json lists the identities; correct it, or let the workload join"
	if near := finding.Nearest(account, sortedKeys(x.accounts)); near != "" {
		remedy = "did you mean " + near + "? " + remedy
	}
	x.find(key, "ISM0327", field, "no workload of the mesh has the service account "+account, remedy)
}

// rawPolicies reports ALLOW policies that name peers' callers on raw TCP ports, where nobody asserts callers.
func (x *crossing) rawPolicies() {
	raw, http := map[string]uint16{}, map[string]bool{}
	for _, w := range x.mesh.Workloads {
		for _, in := range w.Inbound {
			for _, p := range in.Policies.Allow {
				switch {
				case in.Protocol.IsHTTP():
					http[p.Name] = true
				case slices.ContainsFunc(p.Rules,
					func(r model.Rule) bool { return slices.ContainsFunc(r.From, model.Source.NamesPeers) }):
					raw[p.Name] = max(raw[p.Name], in.Port)
				}
			}
		}
	}
	for _, name := range sortedKeys(raw) {
		if http[name] {
			continue
		}
		ns, policy, _ := strings.Cut(name, "/")
		remedy := "start a gateway, and name it"
		if len(x.gateways) > 0 {
			remedy = fmt.Sprintf("name this mesh's own gateway, %q; the FederatedExport says which peer it lets in",
				strings.TrimPrefix(x.gateways[0], "spiffe://"))
		}
		x.find(snapshot.KeyFor[*security.AuthorizationPolicy](ns, policy), "ISM0332", "spec.rules",
			fmt.Sprintf(
				"port %d speaks raw TCP, on which a peer's callers are not known: the rules that name them allow nobody",
				raw[name]), remedy)
	}
}
