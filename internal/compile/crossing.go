package compile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Crossing is why calls between meshes would fail although the objects are in force: what an import asks for and the peer does
// not offer, what an export offers and the workload refuses. As with Unmatched most of it may mend itself, and it is for those
// who ask. The mesh is what was compiled from the snapshot.
func Crossing(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	c := &compiler{snap: snap, cfg: snap.Config}
	if c.cfg == nil || c.cfg.Mesh == nil || mesh == nil || len(c.cfg.MeshPeers) == 0 {
		return nil
	}
	if posture(c); c.mesh == nil {
		return nil
	}
	x := newCrossing(c, mesh)
	for _, i := range c.cfg.FederatedImports {
		key := snapshot.Key{Kind: "FederatedImport", Namespace: i.Namespace, Name: i.Name}
		c.guarded(key, func() { x.importing(key, i) })
	}
	for _, e := range c.cfg.FederatedExports {
		key := snapshot.Key{Kind: "FederatedExport", Namespace: e.Namespace, Name: e.Name}
		c.guarded(key, func() { x.exporting(key, e) })
	}
	x.rawPolicies()
	finding.Sort(c.findings)
	return c.findings
}

type crossing struct {
	*compiler
	accounts map[string]bool // "<namespace>/<service account>" of workloads
	gateways []caller
}

func newCrossing(c *compiler, mesh *model.Mesh) *crossing {
	c.mesh = mesh
	x := &crossing{compiler: c, accounts: map[string]bool{}}
	for _, w := range mesh.Workloads {
		ns, sa, _ := spiffe.WorkloadParts(w.Identity)
		x.accounts[ns+"/"+sa] = true
	}
	for _, p := range mesh.Proxies {
		if p.Gateway != nil {
			ns, sa, _ := spiffe.WorkloadParts(p.Gateway.Identity)
			x.gateways = append(x.gateways, caller{p.Gateway.Identity.String(), ns, sa})
		}
	}
	slices.SortFunc(x.gateways, func(a, b caller) int { return cmp.Compare(a.id, b.id) })
	x.gateways = slices.Compact(x.gateways)
	return x
}

// Passes are the exports through which some call of their peer may pass: no others are offered.
func Passes(mesh *model.Mesh) []*model.Export {
	x := newCrossing(&compiler{}, mesh)
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
		return // why it is ignored another finding says
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
		x.find(key, "ISM0333", finding.Warning, "spec.from", "nobody can serve it now: "+x.absent(i),
			"isthmus peer list shows how it stands with the peers; a source of weight 0 serves nothing")
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
		}
	}
	if i.Spec.Local != nil && weight(i.Spec.Local.Weight) == 0 {
		why = append(why, "the local endpoints have the weight 0")
	}
	return strings.Join(why, ", ")
}

func (x *crossing) hasPeer(name string) bool {
	return slices.ContainsFunc(x.cfg.MeshPeers, func(p *v1alpha1.MeshPeer) bool { return p.Name == name })
}

// offered compares one source with what the peer offers.
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
	at := slices.IndexFunc(catalogue.Services, func(s snapshot.OfferedService) bool { return s.Name == name && s.Namespace == ns })
	if at < 0 {
		remedy := "isthmus catalog " + from.Peer + " lists what it offers; ask its administrators to export this"
		if near := nearOffer(catalogue.Services, name, ns); near != "" {
			remedy = "did you mean " + near + "? Otherwise " + remedy
		}
		x.find(key, "ISM0325", finding.Warning, field+".name",
			fmt.Sprintf("peer %s does not offer %s/%s, so it serves nothing", from.Peer, ns, name), remedy)
		return
	}
	theirs, ours := model.ParseProtocol(catalogue.Services[at].Protocol), model.ParseProtocol(cmp.Or(string(i.Spec.Protocol), "HTTP"))
	if theirs.IsHTTP() != ours.IsHTTP() {
		x.find(key, "ISM0326", finding.Error, "spec.protocol",
			fmt.Sprintf("peer %s offers %s/%s as %s and the import says %s: no call succeeds", from.Peer, ns, name, theirs, ours),
			"write protocol: "+theirs.String())
	}
}

// nearOffer is what was most likely meant: the same name elsewhere, or one that differs by a slip of the pen.
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
	return istioyaml.Nearest(namespace+"/"+name, all)
}

// otherPeer looks for the service at the peers that there are: one may have been peered anew under another name.
func (x *crossing) otherPeer(key snapshot.Key, field, missing, name, ns string) {
	var offering, names []string
	for _, p := range x.cfg.MeshPeers {
		names = append(names, p.Name)
		c := x.snap.Peers[p.Name].Catalogue
		if c != nil && slices.ContainsFunc(c.Services, func(s snapshot.OfferedService) bool { return s.Name == name && s.Namespace == ns }) {
			offering = append(offering, p.Name)
		}
	}
	if len(offering) == 0 {
		if near := istioyaml.Nearest(missing, names); near != "" {
			offering = []string{near}
		}
	}
	if len(offering) > 0 {
		x.find(key, "ISM0334", finding.Warning, field, fmt.Sprintf("there is no peer %q", missing),
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
	if near := istioyaml.Nearest(account, sortedKeys(x.accounts)); near != "" {
		remedy = "did you mean " + near + "? " + remedy
	}
	x.find(key, "ISM0327", finding.Warning, field, "no workload of the mesh has the service account "+account, remedy)
}

func (x *crossing) exporting(key snapshot.Key, e *v1alpha1.FederatedExport) {
	told := false
	for n, to := range e.Spec.To {
		field := fmt.Sprintf("spec.to[%d]", n)
		if !x.hasPeer(to.Peer) {
			x.nearPeer(key, field+".peer", to.Peer)
			continue
		}
		for _, m := range x.mesh.Exports {
			if m.Name != key.Namespace+"/"+key.Name || m.Peer.Name != to.Peer {
				continue
			}
			x.rules(key, field, m, to.Rules)
			if len(x.accounts) == 0 {
				continue // nobody has joined, or this is a folder without its nodes
			}
			if !told && !x.isReady(m) {
				told = true
				x.find(key, "ISM0330", finding.Warning, "spec.service",
					fmt.Sprintf("no endpoint of Service %s/%s is ready at port %d, so every call fails", m.Service.ID.Namespace, m.Service.ID.Name, m.Port.Number),
					"start the workload, or correct the Service's selector and targetPort: isthmus endpoints shows them")
			}
			if !x.admitted(m) {
				x.nobodyAdmitted(key, field, m)
			}
		}
	}
}

func (x *crossing) nearPeer(key snapshot.Key, field, missing string) {
	var names []string
	for _, p := range x.cfg.MeshPeers {
		names = append(names, p.Name)
	}
	if near := istioyaml.Nearest(missing, names); near != "" {
		x.find(key, "ISM0334", finding.Warning, field, fmt.Sprintf("there is no peer %q", missing), "did you mean "+near+"?")
	}
}

func (x *crossing) endpointsOf(e *model.Export) []model.Endpoint {
	return x.mesh.Endpoints[model.EndpointSet{Host: e.Service.Host, Port: e.Port.Number}]
}

func (x *crossing) isReady(e *model.Export) bool {
	return e.Service.DNS || slices.ContainsFunc(x.endpointsOf(e), func(e model.Endpoint) bool { return e.Healthy })
}

// admitted says whether some workload behind an export may let in some call of the peer. What nobody registered is not judged.
func (x *crossing) admitted(e *model.Export) bool {
	judged := false
	for _, ep := range x.endpointsOf(e) {
		w := x.mesh.Workloads[ep.By]
		if w == nil {
			return true
		}
		for _, in := range w.Inbound {
			if in.Port != ep.Port {
				continue
			}
			if in.Mode != model.Strict || x.admits(e, in.Policies) {
				return true
			}
			judged = true
		}
	}
	return !judged
}

// admits over-approximates what a workload's policies allow of an export's calls, which our gateways make.
func (x *crossing) admits(e *model.Export, ps model.Policies) bool {
	everyGateway := func(r model.Rule) bool {
		return !slices.ContainsFunc(x.gateways, func(g caller) bool { return !alwaysMatches(r, g) })
	}
	for _, p := range ps.Deny {
		if len(x.gateways) > 0 && slices.ContainsFunc(p.Rules, everyGateway) {
			return false
		}
	}
	if len(ps.Allow) == 0 {
		return ps.DefaultAllow
	}
	return slices.ContainsFunc(ps.Allow, func(p *model.Policy) bool {
		return slices.ContainsFunc(p.Rules, func(r model.Rule) bool {
			if !e.Port.Protocol.IsHTTP() && r.NeedsHTTP() {
				return false // dropped on raw TCP
			}
			return len(r.From) == 0 || slices.ContainsFunc(r.From, func(s model.Source) bool { return x.carries(e, s) })
		})
	})
}

// carries says whether a source may be met by a call that one of our gateways makes for the export.
func (x *crossing) carries(e *model.Export, s model.Source) bool {
	if e.Port.Protocol.IsHTTP() && slices.ContainsFunc(s.Principals, func(p model.Principal) bool {
		return p.Match.Kind == model.Present || p.Match.Kind == model.Suffix || p.Peer == e.Peer.Name && asserts(e, p.Match)
	}) {
		return true
	}
	if len(s.TrustDomains) > 0 {
		return slices.ContainsFunc(s.TrustDomains, func(td string) bool { return globMatches(td, e.Peer.TrustDomain.Name()) })
	}
	return slices.ContainsFunc(x.gateways, func(g caller) bool { return sourceMatches(s, g) })
}

// asserts says whether some caller that the export's rules let through matches.
func asserts(e *model.Export, m model.Match) bool {
	for _, r := range e.Rules {
		if len(r.Callers) == 0 {
			return true
		}
		for _, c := range r.Callers {
			if stringMatches(m, c.Value) || c.Kind == model.Prefix && (m.Kind != model.Exact || strings.HasPrefix(m.Value, c.Value)) {
				return true
			}
		}
	}
	return false
}

// nobodyAdmitted says which policy to write.
func (x *crossing) nobodyAdmitted(key snapshot.Key, field string, e *model.Export) {
	var principals []string
	why := "its AuthorizationPolicies allow none of the callers that the export lets through"
	if e.Port.Protocol.IsHTTP() {
		for _, r := range e.Rules {
			for _, c := range r.Callers {
				v := strings.TrimPrefix(c.Value, "spiffe://")
				if c.Kind == model.Prefix {
					v += "*"
				}
				principals = append(principals, v)
			}
			if len(r.Callers) == 0 {
				principals = append(principals, e.Peer.TrustDomain.Name()+"/*")
			}
		}
	} else {
		why = "a raw connection reaches it in the name of this mesh's own gateway, which none of its AuthorizationPolicies allows"
		for _, g := range x.gateways {
			principals = append(principals, strings.TrimPrefix(g.id, "spiffe://"))
		}
	}
	slices.Sort(principals)
	principals = slices.Compact(principals)
	if len(principals) == 0 {
		return // no rule, or no gateway: that is the matter then
	}
	x.find(key, "ISM0328", finding.Warning, field,
		fmt.Sprintf("every call of peer %s is refused by the workload behind %s/%s: %s", e.Peer.Name, e.Service.ID.Namespace, e.Service.ID.Name, why),
		fmt.Sprintf(`write an AuthorizationPolicy in namespace %s that selects the workload, with the rule {from: [{source: {principals: [%s]}}]}`,
			e.Service.ID.Namespace, `"`+strings.Join(principals, `", "`)+`"`))
}

// callerForm is the only form of an identity that a peer's gateway may assert; what may follow a prefix makes one of it.
var callerForm = regexp.MustCompile(`^/ns/[A-Za-z0-9][A-Za-z0-9._-]*/sa/[A-Za-z0-9][A-Za-z0-9._-]*$`)

// rules of an export that no request can meet.
func (x *crossing) rules(key snapshot.Key, field string, e *model.Export, rules []v1alpha1.ExportRule) {
	for n, r := range rules {
		for m, v := range r.Callers {
			rest := strings.TrimPrefix(v, "spiffe://"+e.Peer.TrustDomain.Name())
			prefix, open := strings.CutSuffix(rest, "*")
			if open && beginsCaller(prefix) || !open && callerForm.MatchString(rest) {
				continue
			}
			x.find(key, "ISM0331", finding.Warning, fmt.Sprintf("%s.rules[%d].callers[%d]", field, n, m),
				fmt.Sprintf("no caller of peer %s can be %q", e.Peer.Name, v),
				"write spiffe://"+e.Peer.TrustDomain.Name()+"/ns/<namespace>/sa/<service account>")
		}
	}
}

// beginsCaller says whether some identity begins so.
func beginsCaller(prefix string) bool {
	for _, end := range []string{"", "/ns/a/sa/a", "ns/a/sa/a", "s/a/sa/a", "/a/sa/a", "a/sa/a", "/sa/a", "sa/a", "a", "/a"} {
		if callerForm.MatchString(prefix + end) {
			return true
		}
	}
	return false
}

// rawPolicies looks for peers' callers in ALLOW policies of workloads that speak no HTTP: there nobody asserts them.
func (x *crossing) rawPolicies() {
	raw, http := map[string]uint16{}, map[string]bool{}
	for _, w := range x.mesh.Workloads {
		for _, in := range w.Inbound {
			for _, p := range in.Policies.Allow {
				switch {
				case in.Protocol.IsHTTP():
					http[p.Name] = true
				case slices.ContainsFunc(p.Rules, func(r model.Rule) bool { return slices.ContainsFunc(r.From, model.Source.NamesPeers) }):
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
				strings.TrimPrefix(x.gateways[0].id, "spiffe://"))
		}
		x.find(snapshot.Key{Kind: "AuthorizationPolicy", Namespace: ns, Name: policy}, "ISM0332", finding.Warning, "spec.rules",
			fmt.Sprintf("port %d speaks raw TCP, on which a peer's callers are not known: the rules that name them allow nobody", raw[name]), remedy)
	}
}
