package compile

import (
	"fmt"
	"maps"
	"slices"

	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// peerAuth is a PeerAuthentication.
type peerAuth struct {
	age
	ref    model.Ref
	narrow bool // it has a selector, and so may set modes of single ports
	mode   string
	ports  map[uint32]string
}

// peerAuthIndex finds the PeerAuthentications that apply: workload before namespace before mesh (Istio:
// PeerAuthentication). Of several for one scope the oldest counts; if that is unknown, the stricter one. In the root
// namespace, those for the namespace apply to the mesh.
type peerAuthIndex struct {
	namespace  []peerAuth          // in effect: one, or several of the same age
	bySelector selectors[peerAuth] // all of them, oldest first
}

func (u *unit) peerAuths() {
	for age, pa := range oldestFirst[*security.PeerAuthentication](u.objects) {
		u.guarded(age.key, func() { u.addPeerAuth(age, pa) })
	}
}

func (u *unit) addPeerAuth(age age, pa *security.PeerAuthentication) {
	u.istioRoot(u.mesh, age.key)
	one := peerAuth{
		age: age, ref: u.ref(age.key), narrow: len(pa.Spec.GetSelector().GetMatchLabels()) > 0,
		mode: pa.Spec.GetMtls().GetMode().String(), ports: map[uint32]string{},
	}
	for port, m := range pa.Spec.PortLevelMtls {
		one.ports[port] = m.GetMode().String()
	}
	root := u.namespace == u.mesh.rootNamespace
	switch {
	case !one.narrow && root:
		u.mtls.namespace = u.nextPeerAuth(u.mtls.namespace, one, "the mesh")
	case !one.narrow:
		u.mtls.namespace = u.nextPeerAuth(u.mtls.namespace, one, "namespace "+u.namespace)
	case root:
		u.find(age.key, "ISM0030", "spec.selector",
			"a selector in the root namespace has no effect; the object is ignored")
	default:
		u.mtls.bySelector.add(pa.Spec.GetSelector().GetMatchLabels(), one)
	}
}

// istioRoot warns about an object that in Istio would apply to the whole mesh but does not here.
func (r *report) istioRoot(mesh *meshInputs, key snapshot.Key) {
	if key.Namespace != "istio-system" || mesh.rootNamespace == key.Namespace {
		return
	}
	r.find(key, "ISM0033", "metadata.namespace",
		"istio-system is not this mesh's root namespace, so this applies to the workloads in istio-system "+
			"alone, not to the whole mesh",
		"move it to "+mesh.rootNamespace+", or write rootNamespace: istio-system into the Mesh")
}

// nextPeerAuth adds one more object to those that count for a scope. Objects arrive oldest first.
func (u *unit) nextPeerAuth(counts []peerAuth, pa peerAuth, scope string) []peerAuth {
	if len(counts) == 0 {
		return append(counts, pa)
	}
	first := counts[0]
	message := fmt.Sprintf("%s speaks for %s already, and is older; this one is ignored", first.ref, scope)
	if first.ties(pa.age) {
		message = fmt.Sprintf("%s speaks for %s too, and it is unknown which is older; the stricter of them counts",
			first.ref, scope)
		counts = append(counts, pa)
	}
	u.find(pa.key, "ISM0031", "metadata.name", message)
	return counts
}

// modes of one instance: the default, and those of single ports, with the objects that set them.
type modes struct {
	any   model.MTLSMode
	ports map[uint32]model.MTLSMode
	refs  []model.Ref
}

func (m modes) of(port uint16) model.MTLSMode {
	if v, ok := m.ports[uint32(port)]; ok {
		return v
	}
	return m.any
}

// modesOf returns the modes of an instance. They are memoised, since every port of every service needs them.
func (u *unit) modesOf(i *instance) modes {
	out, ok := u.modes[i]
	if !ok {
		out = u.modesNow(i)
		u.modes[i] = out
	}
	return out
}

func (u *unit) modesNow(i *instance) modes {
	if closed := u.closedBy(i); len(closed) > 0 {
		out := modes{any: model.Strict}
		for _, p := range closed {
			out.refs = append(out.refs, p.Ref)
		}
		return out
	}
	out := modes{any: u.mesh.mode}
	for _, scope := range [][]peerAuth{u.root.peerAuths, u.mtls.namespace, u.selectedPeerAuths(i)} {
		out = narrowed(out, scope)
	}
	return out
}

// narrowed applies the objects of a narrower scope to the modes of the wider one. Of several objects, only those that
// make it stricter are named, since there may be thousands.
func narrowed(wider modes, scope []peerAuth) modes {
	out := wider
	for n, pa := range scope {
		if n > 0 && out.any == model.Strict && len(out.ports) == 0 {
			break // nothing is stricter
		}
		one := modes{any: mode(pa.mode, wider.any)}
		if pa.narrow {
			one.ports = map[uint32]model.MTLSMode{}
			for port, m := range pa.ports {
				one.ports[port] = mode(m, one.any)
			}
		}
		refs := slices.Clip(out.refs)
		if n > 0 {
			if one = stricter(out, one); one.any == out.any && maps.Equal(one.ports, out.ports) {
				continue
			}
		}
		one.refs = append(refs, pa.ref)
		out = one
	}
	return out
}

// stricter returns the stricter mode for each port. The refs are those of b.
func stricter(a, b modes) modes {
	out := modes{any: min(a.any, b.any), ports: map[uint32]model.MTLSMode{}, refs: b.refs}
	for _, ports := range []map[uint32]model.MTLSMode{a.ports, b.ports} {
		for p := range ports {
			out.ports[p] = min(a.of(uint16(p)), b.of(uint16(p)))
		}
	}
	return out
}

// selectedPeerAuths returns the objects with a selector that count for an instance: the oldest that selects it, and
// those of the same age.
func (u *unit) selectedPeerAuths(i *instance) []peerAuth {
	var out []peerAuth
	for _, pa := range u.mtls.bySelector.of(i) {
		if len(out) > 0 && !out[0].ties(pa.age) {
			break
		}
		out = append(out, pa)
	}
	return out
}

// reportOverlaps reports, once each, objects that select something that an older one selects too.
func (u *unit) reportOverlaps() {
	all := u.mtls.bySelector.all
	if len(all) < 2 {
		return
	}
	said := make([]bool, len(all))
	for _, i := range u.backends.all {
		first := -1
		for _, n := range u.mtls.bySelector.places(i) {
			switch {
			case first < 0:
				first = n
			case !said[n]:
				said[n] = true
				u.nextPeerAuth([]peerAuth{all[first].object}, all[n].object,
					kind.Workload(i.namespace, i.name).String())
			}
		}
	}
}

// mode parses a mode. An unknown mode, which checks refuse, is the strictest.
func mode(s string, otherwise model.MTLSMode) model.MTLSMode {
	switch s {
	case "", "UNSET":
		return otherwise
	case "PERMISSIVE":
		return model.Permissive
	case "DISABLE":
		return model.Disable
	}
	return model.Strict
}

// speaksMTLS reports whether callers use mutual TLS: unless every server of the port has it disabled.
func (u *unit) speaksMTLS(is []backing) bool {
	for _, i := range is {
		if i.identity != "" && u.modesOf(i.instance).of(i.number) != model.Disable {
			return true
		}
	}
	return false
}

// listen records that a workload serves a port for a service.
func (u *unit) listen(w *model.Workload, number uint16, p model.Protocol, svc *model.Service) {
	for n := range w.Inbound {
		in := &w.Inbound[n]
		if in.Port != number {
			continue
		}
		if in.Protocol != p {
			u.findings = append(u.findings,
				finding.New("ISM0032", kind.Workload(w.ID.Namespace, w.ID.Name), "",
					fmt.Sprintf("port %d is %s for one service and %s for %s; %s is kept", number, in.Protocol, p,
						svc.Host, in.Protocol)))
			return
		}
		in.Hosts = append(in.Hosts, model.HostNames(svc, u.mesh.domain)...)
		in.Refs = append(in.Refs, svc.Refs...)
		return
	}
	w.Inbound = append(w.Inbound, model.Inbound{
		Port: number, Protocol: p, Hosts: model.HostNames(svc, u.mesh.domain), Refs: slices.Clone(svc.Refs),
	})
}

// settleWorkloads sets the mode and policies of each port of each registered workload.
func (u *unit) settleWorkloads() {
	u.reportOverlaps()
	for _, i := range u.backends.all {
		if i.workload == nil {
			continue
		}
		w, m := i.workload, u.modesOf(i)
		w.Mode, w.Refs = m.any, m.refs
		for _, number := range i.ports {
			if !slices.ContainsFunc(w.Inbound, func(in model.Inbound) bool { return in.Port == number }) {
				w.Inbound = append(w.Inbound, model.Inbound{Port: number})
			}
		}
		slices.SortFunc(w.Inbound, func(a, b model.Inbound) int { return int(a.Port) - int(b.Port) })
		for n := range w.Inbound {
			in := &w.Inbound[n]
			in.Mode, in.Policies = m.of(in.Port), *u.policiesAt(i, in.Port, in.Protocol.IsHTTP())
			slices.Sort(in.Hosts)
			in.Hosts = slices.Compact(in.Hosts)
		}
	}
}
