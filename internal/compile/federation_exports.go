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
	"isthmus.dev/isthmus/internal/sni"
	corev1 "k8s.io/api/core/v1"
)

// exports are what is offered to peers.
type exports struct {
	all      []*model.Export // sorted by SNI
	findings []finding.Finding
}

// exporter builds exports.
type exporter struct {
	report
	*linker
	imported map[model.EndpointSet]*model.Import
	snis     map[string]string // the export that has it
	all      []*model.Export
}

func (l *linker) exports() {
	from := []any{l.in.mesh, l.now.peers, l.now.importPlan.out, l.now.services}
	of := l.with(has[*v1alpha1.FederatedExport])
	for _, o := range of {
		from = append(from, o)
	}
	l.now.exports = l.before.exports.again(from, func() *exports {
		x := &exporter{report: report{origins: l.origins}, linker: l, imported: l.imported(), snis: map[string]string{}}
		for age, e := range oldestFirst[*v1alpha1.FederatedExport](of...) {
			x.report.guarded(age.key, nil, func() { x.add(age.key, e) })
		}
		slices.SortFunc(x.all, func(a, b *model.Export) int { return cmp.Compare(a.SNI, b.SNI) })
		all := keepEach(l.was.Exports, x.all, func(e *model.Export) string { return e.SNI })
		return &exports{all, x.report.findings}
	})
	l.mesh.Exports = l.now.exports.out.all
	l.findings = append(l.findings, l.now.exports.out.findings...)
}

func (x *exporter) add(key snapshot.Key, e *v1alpha1.FederatedExport) {
	service := snapshot.KeyFor[*corev1.Service](e.Namespace, e.Spec.Service)
	svc := x.mesh.Services[model.ServiceID{Namespace: service.Namespace, Name: service.Name}]
	if svc == nil {
		x.find(key, "ISM0060", "spec.service",
			fmt.Sprintf("there is no %s; nothing is exported", service))
		return
	}
	port := portOf(svc, uint16(e.Spec.Port))
	if port == nil {
		x.find(key, "ISM0061", "spec.port",
			fmt.Sprintf("%s has no port %d; nothing is exported", service, e.Spec.Port))
		return
	}
	imp := x.imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]
	if imp != nil && imp.Local == nil {
		x.find(key, "ISM0329", "spec.service",
			fmt.Sprintf("port %d of %s/%s is imported from a peer: a mesh does not pass on what is another's, so nothing is exported",
				port.Number, e.Namespace, e.Spec.Service))
		return
	}
	for n, to := range e.Spec.To {
		x.to(e, key, svc, port, n, to)
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

func (x *exporter) to(
	e *v1alpha1.FederatedExport, key snapshot.Key, svc *model.Service, port *model.Port, n int, to v1alpha1.ExportTo,
) {
	field := fmt.Sprintf("spec.to[%d]", n)
	if !x.in.mesh.hasPeer(to.Peer) {
		x.find(key, "ISM0062", field+".peer",
			fmt.Sprintf("there is no peer %q yet; nothing is exported to it", to.Peer), "isthmus peer invite "+to.Peer)
		return
	}
	switch http := port.Protocol.IsHTTP(); {
	case http && len(to.Rules) == 0:
		x.find(key, "ISM0063", field+".rules", "an HTTP export without rules passes nothing")
	case !http && len(to.Rules) > 0:
		x.find(key, "ISM0064", field+".rules",
			fmt.Sprintf("port %d speaks %s: rules on callers, methods or paths cannot be enforced there, so nothing is exported",
				port.Number, port.Protocol))
		return
	}
	peer := x.mesh.Peers[to.Peer]
	if peer == nil || !peer.Live {
		return
	}
	alias := cmp.Or(e.Spec.Alias, e.Spec.Service)
	name := sni.Export(alias, e.Namespace, peer.Name, x.in.mesh.trustDomain.Name())
	if !x.canBeNamed(key, "spec.alias", name) {
		return
	}
	if other := x.snis[name]; other != "" {
		x.find(key, "ISM0065", "spec.alias",
			fmt.Sprintf("%s already exports the name %s in namespace %s to peer %s; this one is ignored",
				other, alias, e.Namespace, to.Peer))
		return
	}
	x.snis[name] = key.String()
	rules, ok := x.rules(key, field, peer, to.Rules)
	if !ok {
		return
	}
	x.all = append(x.all, &model.Export{
		Name: e.Namespace + "/" + e.Name, Alias: alias, Peer: peer, Service: svc, Port: port, SNI: name, Rules: rules,
		Ref: x.ref(key),
	})
}

func (x *exporter) rules(
	key snapshot.Key, field string, peer *model.Peer, rules []v1alpha1.ExportRule,
) ([]model.ExportRule, bool) {
	var out []model.ExportRule
	for n, r := range rules {
		rule := model.ExportRule{Methods: r.Methods}
		for m, caller := range r.Callers {
			if !strings.HasPrefix(caller, "spiffe://"+peer.TrustDomain.Name()+"/") {
				x.find(key, "ISM0066", fmt.Sprintf("%s.rules[%d].callers[%d]", field, n, m),
					fmt.Sprintf("%q lies outside the trust domain of peer %s; nothing is exported to it", caller,
						peer.Name),
					"write spiffe://"+peer.TrustDomain.Name()+"/ns/<namespace>/sa/<service account>")
				return nil, false
			}
			rule.Callers = append(rule.Callers, match(caller))
		}
		rule.Paths = pathMatches(r.Paths)
		x.reportPaths(key, fmt.Sprintf("%s.rules[%d].paths", field, n), rule.Paths)
		out = append(out, rule)
	}
	return out, true
}
