package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

func peers(c *compiler) {
	verdicts := peerrules.All(c.snap, c.mesh.TrustDomain.Name())
	c.verdicts = verdicts
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](c.cfg) {
		key := snapshot.Key{Kind: "MeshPeer", Name: p.Name}
		c.guarded(key, func() { c.addPeer(key, p, verdicts[p.Name]) })
	}
	for _, i := range c.snap.Invites {
		c.mesh.Invites = append(c.mesh.Invites, model.Invite{ID: i.ID, Peer: i.Peer})
	}
	for _, b := range c.snap.Bootstraps {
		c.mesh.Bootstraps = append(c.mesh.Bootstraps, model.Bootstrap{ID: b.ID, Address: b.Address})
	}
}

func (c *compiler) addPeer(key snapshot.Key, p *v1alpha1.MeshPeer, v peerrules.Verdict) {
	if !v.Live {
		sev := finding.Warning
		if v.Reason == peerrules.OwnTrustDomain || v.Reason == peerrules.SameTrustDomain ||
			v.Reason == peerrules.SharedRoot || v.Reason == peerrules.BadRoots {
			sev = finding.Error
		}
		c.find(key, "ISM0050", sev, "spec", "nothing passes between this mesh and the peer: "+v.Message,
			"isthmus peer status "+p.Name)
	}
	if !v.Control {
		return
	}
	td, err := spiffe.ParseTrustDomain(p.Spec.TrustDomain)
	if err != nil || !c.gatewaysInDomain(key, p, td) ||
		!c.canBeNamed(key, "spec.trustDomain", sni.Control(p.Spec.KnownAs, td.Name()),
			sni.Control(p.Name, c.mesh.TrustDomain.Name())) {
		return
	}
	c.mesh.Roots[td.Name()] = v.Roots
	c.mesh.Peers[p.Name] = &model.Peer{
		Name: p.Name, Live: v.Live, TrustDomain: td, KnownAs: p.Spec.KnownAs,
		Addresses: p.Spec.GatewayAddresses, GatewayIDs: p.Spec.GatewayIDs, Ref: c.ref(key),
	}
}

// gatewaysInDomain refuses a peer whose gateways claim an identity outside its trust domain.
func (c *compiler) gatewaysInDomain(key snapshot.Key, p *v1alpha1.MeshPeer, td spiffe.TrustDomain) bool {
	for n, s := range p.Spec.GatewayIDs {
		id, err := spiffe.Parse(s)
		if err != nil || !id.MemberOf(td) {
			c.find(key, "ISM0051", finding.Error, fmt.Sprintf("spec.gatewayIDs[%d]", n),
				fmt.Sprintf("%q is no SPIFFE ID in trust domain %s", s, td.Name()), "write the gateway's exact ID, as the peer's 'isthmus peer manifest' prints it")
			return false
		}
	}
	return len(p.Spec.GatewayIDs) > 0
}

// canBeNamed refuses names that no TLS handshake could carry.
func (c *compiler) canBeNamed(key snapshot.Key, field string, names ...string) bool {
	for _, n := range names {
		if len(n) > sni.MaxLen {
			c.find(key, "ISM0052", finding.Error, field, fmt.Sprintf("between the meshes this would be called %s, %d characters long, where %d fit; it is ignored", n, len(n), sni.MaxLen), "choose shorter names or a shorter trust domain")
			return false
		}
	}
	return true
}

func exports(c *compiler) {
	snis := map[string]string{}
	for _, e := range snapshot.OldestFirst[*v1alpha1.FederatedExport](c.cfg) {
		key := snapshot.Key{Kind: "FederatedExport", Namespace: e.Namespace, Name: e.Name}
		c.guarded(key, func() { c.addExport(key, e, snis) })
	}
	slices.SortFunc(c.mesh.Exports, func(a, b *model.Export) int { return cmp.Compare(a.SNI, b.SNI) })
}

func (c *compiler) addExport(key snapshot.Key, e *v1alpha1.FederatedExport, snis map[string]string) {
	svc := c.mesh.Services[model.ServiceID{Namespace: e.Namespace, Name: e.Spec.Service}]
	if svc == nil {
		c.find(key, "ISM0060", finding.Error, "spec.service",
			fmt.Sprintf("there is no Service %s/%s; nothing is exported", e.Namespace, e.Spec.Service),
			"write the Service, or correct the name")
		return
	}
	port := portOf(svc, uint16(e.Spec.Port))
	if port == nil {
		c.find(key, "ISM0061", finding.Error, "spec.port",
			fmt.Sprintf("Service %s/%s has no port %d; nothing is exported", e.Namespace, e.Spec.Service, e.Spec.Port),
			"write one of the Service's port numbers")
		return
	}
	imp := c.imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]
	if imp != nil && imp.Local == nil {
		c.find(key, "ISM0329", finding.Error, "spec.service",
			fmt.Sprintf("port %d of %s/%s is imported from a peer: a mesh does not pass on what is another's, so nothing is exported", port.Number, e.Namespace, e.Spec.Service),
			"ask the administrators of that mesh to export it to the peer themselves")
		return
	}
	for n, to := range e.Spec.To {
		c.exportTo(e, key, svc, port, n, to, snis)
	}
}

func portOf(svc *model.Service, number uint16) *model.Port {
	for _, p := range svc.Ports {
		if p.Number == number {
			return p
		}
	}
	return nil
}

func (c *compiler) exportTo(e *v1alpha1.FederatedExport, key snapshot.Key, svc *model.Service, port *model.Port, n int, to v1alpha1.ExportTo, snis map[string]string) {
	field := fmt.Sprintf("spec.to[%d]", n)
	if snapshot.Named[*v1alpha1.MeshPeer](c.cfg.Objects, "", to.Peer) == nil {
		c.find(key, "ISM0062", finding.Warning, field+".peer", fmt.Sprintf("there is no peer %q yet; nothing is exported to it", to.Peer), "isthmus peer invite "+to.Peer)
		return
	}
	switch http := port.Protocol.IsHTTP(); {
	case http && len(to.Rules) == 0:
		c.find(key, "ISM0063", finding.Warning, field+".rules", "an HTTP export without rules passes nothing", "add a rule; 'rules: [{}]' passes every request of the peer")
	case !http && len(to.Rules) > 0:
		c.find(key, "ISM0064", finding.Error, field+".rules", fmt.Sprintf("port %d speaks %s: rules on callers, methods or paths cannot be enforced there, so nothing is exported", port.Number, port.Protocol), "remove the rules (the whole peer may then connect), or name the Service's port http-…")
		return
	}
	peer := c.mesh.Peers[to.Peer]
	if peer == nil || !peer.Live {
		return
	}
	alias := cmp.Or(e.Spec.Alias, e.Spec.Service)
	name := sni.Export(alias, e.Namespace, peer.Name, c.mesh.TrustDomain.Name())
	if !c.canBeNamed(key, "spec.alias", name) {
		return
	}
	if other := snis[name]; other != "" {
		c.find(key, "ISM0065", finding.Error, "spec.alias", fmt.Sprintf("%s already exports the name %s in namespace %s to peer %s; this one is ignored", other, alias, e.Namespace, to.Peer), "choose another alias")
		return
	}
	snis[name] = key.String()
	rules, ok := c.exportRules(key, field, peer, to.Rules)
	if !ok {
		return
	}
	c.mesh.Exports = append(c.mesh.Exports, &model.Export{
		Name: e.Namespace + "/" + e.Name, Alias: alias, Peer: peer, Service: svc, Port: port, SNI: name, Rules: rules, Ref: c.ref(key),
	})
}

func (c *compiler) exportRules(key snapshot.Key, field string, peer *model.Peer, rules []v1alpha1.ExportRule) ([]model.ExportRule, bool) {
	var out []model.ExportRule
	for n, r := range rules {
		rule := model.ExportRule{Methods: r.Methods}
		for m, caller := range r.Callers {
			if !strings.HasPrefix(caller, "spiffe://"+peer.TrustDomain.Name()+"/") {
				c.find(key, "ISM0066", finding.Error, fmt.Sprintf("%s.rules[%d].callers[%d]", field, n, m),
					fmt.Sprintf("%q lies outside the trust domain of peer %s; nothing is exported to it", caller, peer.Name), "write spiffe://"+peer.TrustDomain.Name()+"/ns/<namespace>/sa/<service account>")
				return nil, false
			}
			rule.Callers = append(rule.Callers, match(caller))
		}
		rule.Paths = pathMatches(r.Paths)
		c.reportPaths(key, fmt.Sprintf("%s.rules[%d].paths", field, n), rule.Paths)
		out = append(out, rule)
	}
	return out, true
}

func imports(c *compiler) {
	c.imported = map[model.EndpointSet]*model.Import{}
	for _, i := range snapshot.OldestFirst[*v1alpha1.FederatedImport](c.cfg) {
		key := snapshot.Key{Kind: "FederatedImport", Namespace: i.Namespace, Name: i.Name}
		c.guarded(key, func() { c.addImport(key, i) })
	}
	slices.SortFunc(c.mesh.Imports, func(a, b *model.Import) int { return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port)) })
}

func importHost(i *v1alpha1.FederatedImport, domain string) string {
	return fmt.Sprintf("%s.%s.svc.%s", i.Name, i.Namespace, domain)
}

func (c *compiler) addImport(key snapshot.Key, i *v1alpha1.FederatedImport) {
	id := model.ServiceID{Namespace: i.Namespace, Name: i.Name}
	imp := &model.Import{
		ID: id, Name: i.Namespace + "/" + i.Name, Host: importHost(i, c.mesh.Domain),
		Port: uint16(i.Spec.Port), Protocol: model.ParseProtocol(cmp.Or(string(i.Spec.Protocol), "HTTP")),
		Callers: c.importCallers(key, i), Ref: c.ref(key),
	}
	for n, from := range i.Spec.From {
		r, absent, ok := c.remote(key, i, n, from)
		switch {
		case weight(from.Weight) == 0:
		case ok:
			imp.Remotes = append(imp.Remotes, r)
		default:
			imp.Absent = append(imp.Absent, absent)
		}
	}
	slices.SortStableFunc(imp.Remotes, func(a, b model.Remote) int { return cmp.Compare(a.Priority, b.Priority) })
	if other := c.byHost[imp.Host]; other != nil && other.ID != id {
		c.find(key, "ISM0076", finding.Error, "metadata.name", fmt.Sprintf("%s is already served by %s; the import is ignored", imp.Host, other.Refs[0]), "remove one of them")
		return
	}
	svc := c.mesh.Services[id]
	if !c.importLocal(key, i, imp, svc) {
		return
	}
	if svc == nil {
		svc = &model.Service{ID: id, Host: imp.Host, Refs: []model.Ref{imp.Ref}}
		c.place(key, svc, nil)
	}
	if portOf(svc, imp.Port) == nil {
		svc.Ports = append(svc.Ports, &model.Port{Number: imp.Port, Protocol: imp.Protocol})
	}
	c.imported[model.EndpointSet{Host: imp.Host, Port: imp.Port}] = imp
	c.mesh.Imports = append(c.mesh.Imports, imp)
}

func (c *compiler) importCallers(key snapshot.Key, i *v1alpha1.FederatedImport) []string {
	if len(i.Spec.Callers) == 0 {
		c.find(key, "ISM0070", finding.Warning, "spec.callers", "no caller is listed, so nobody may call", "list the service accounts that may call")
	}
	var out []string
	for n, v := range i.Spec.Callers {
		ns, sa, qualified := strings.Cut(v, "/")
		if !qualified {
			ns, sa = i.Namespace, v
		}
		id, err := spiffe.Workload(c.mesh.TrustDomain, ns, sa)
		if err != nil {
			c.find(key, "ISM0071", finding.Error, fmt.Sprintf("spec.callers[%d]", n), fmt.Sprintf("%q names no identity: %v", v, err), "write <service account> or <namespace>/<service account>")
			continue
		}
		out = append(out, id.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// remote is a source of an import; where it cannot be one now, absent says why.
func (c *compiler) remote(
	key snapshot.Key, i *v1alpha1.FederatedImport, n int, from v1alpha1.ImportFrom,
) (r model.Remote, absent string, ok bool) {
	field := fmt.Sprintf("spec.from[%d]", n)
	if snapshot.Named[*v1alpha1.MeshPeer](c.cfg.Objects, "", from.Peer) == nil {
		c.find(key, "ISM0072", finding.Warning, field+".peer", fmt.Sprintf("there is no peer %q yet; it serves nothing", from.Peer), "isthmus peer accept, with the invitation of that mesh")
		return r, "there is no peer " + from.Peer + " yet", false
	}
	peer := c.mesh.Peers[from.Peer]
	if peer == nil || !peer.Live {
		return r, "peer " + from.Peer + " " + standing(c.verdicts[from.Peer].Reason), false
	}
	r = model.Remote{
		Peer: peer, Alias: cmp.Or(from.Name, i.Name), Namespace: cmp.Or(from.Namespace, i.Namespace),
		Weight: weight(from.Weight), Priority: uint32(from.Priority),
	}
	r.SNI = sni.Export(r.Alias, r.Namespace, peer.KnownAs, peer.TrustDomain.Name())
	if !c.canBeNamed(key, field+".name", r.SNI) {
		return r, "its name at peer " + from.Peer + " is too long", false
	}
	return r, "", true
}

// standing says to a caller why nothing passes between the meshes.
func standing(r peerrules.Reason) string {
	switch r {
	case peerrules.Suspended:
		return "is suspended"
	case peerrules.Expired:
		return "has expired"
	case peerrules.Revoked:
		return "is revoked"
	case peerrules.Stale:
		return "has not been reached for too long"
	case peerrules.NoRoots:
		return "has not been met yet"
	}
	return "is not trusted"
}

func weight(w *int32) uint32 {
	if w == nil {
		return 1
	}
	return uint32(*w)
}

// importLocal settles how a local Service of the same name takes part (with a weight of 0 it does not); false when the import cannot stand.
func (c *compiler) importLocal(key snapshot.Key, i *v1alpha1.FederatedImport, imp *model.Import, svc *model.Service) bool {
	var port *model.Port
	if svc != nil {
		port = portOf(svc, imp.Port)
	}
	switch {
	case i.Spec.Local == nil:
		if port != nil {
			c.find(key, "ISM0073", finding.Warning, "spec.local", fmt.Sprintf("Service %s has port %d too; its endpoints are not used while the import says nothing of them", imp.Name, imp.Port), "add 'local: {}' to use both, or remove the Service")
		}
	case port == nil:
		c.find(key, "ISM0074", finding.Error, "spec.local", fmt.Sprintf("there is no Service %s with port %d; only the peers serve", imp.Name, imp.Port), "write the Service, or remove 'local'")
	case port.Protocol != imp.Protocol:
		c.find(key, "ISM0075", finding.Error, "spec.protocol", fmt.Sprintf("the Service speaks %s and the import %s; the import is ignored", port.Protocol, imp.Protocol), "make them equal")
		return false
	case weight(i.Spec.Local.Weight) > 0:
		imp.Local = &model.LocalPart{Weight: weight(i.Spec.Local.Weight), Priority: uint32(i.Spec.Local.Priority)}
	}
	return true
}
