package compile

import (
	"fmt"
	"maps"
	"slices"

	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// peerAuthIndex finds the PeerAuthentications that apply: workload over namespace over mesh (Istio:
// PeerAuthentication). Of several for one scope the oldest counts; where nobody knows which that is, the stricter.
type peerAuthIndex struct {
	mesh        []*security.PeerAuthentication            // in force: one, or more of one age
	byNamespace map[string][]*security.PeerAuthentication // likewise
	bySelector  map[string][]*security.PeerAuthentication // by namespace, all of them, oldest first
}

func peerAuths(c *compiler) {
	c.mtls.byNamespace = map[string][]*security.PeerAuthentication{}
	c.mtls.bySelector = map[string][]*security.PeerAuthentication{}
	for _, pa := range snapshot.OldestFirst[*security.PeerAuthentication](c.cfg) {
		c.guarded(peerAuthKey(pa), func() { c.addPeerAuth(pa) })
	}
}

func (c *compiler) addPeerAuth(pa *security.PeerAuthentication) {
	root := pa.Namespace == c.mesh.RootNamespace
	c.istioRoot(peerAuthKey(pa))
	switch {
	case len(pa.Spec.GetSelector().GetMatchLabels()) == 0 && root:
		c.mtls.mesh = c.nextPeerAuth(c.mtls.mesh, pa, "the mesh")
	case len(pa.Spec.GetSelector().GetMatchLabels()) == 0:
		c.mtls.byNamespace[pa.Namespace] = c.nextPeerAuth(c.mtls.byNamespace[pa.Namespace], pa, "namespace "+pa.Namespace)
	case root:
		c.find(peerAuthKey(pa), "ISM0030", finding.Warning, "spec.selector",
			"a selector in the root namespace has no effect; the object is ignored",
			"move it to the workload's namespace")
	default:
		c.mtls.bySelector[pa.Namespace] = append(c.mtls.bySelector[pa.Namespace], pa)
	}
}

// istioRoot warns of what would mean the whole mesh in Istio and does not here.
func (c *compiler) istioRoot(key snapshot.Key) {
	if key.Namespace != "istio-system" || c.mesh.RootNamespace == key.Namespace {
		return
	}
	c.find(key, "ISM0033", finding.Warning, "metadata.namespace",
		"istio-system is not this mesh's root namespace, so this applies to the workloads in istio-system "+
			"alone, not to the whole mesh",
		"move it to "+c.mesh.RootNamespace+", or write rootNamespace: istio-system into the Mesh")
}

func peerAuthKey(pa *security.PeerAuthentication) snapshot.Key {
	return snapshot.Key{Kind: "PeerAuthentication", Namespace: pa.Namespace, Name: pa.Name}
}

// nextPeerAuth is what counts for a scope when one more object speaks for it; objects come oldest first.
func (c *compiler) nextPeerAuth(
	counts []*security.PeerAuthentication, pa *security.PeerAuthentication, scope string,
) []*security.PeerAuthentication {
	if len(counts) == 0 {
		return append(counts, pa)
	}
	first := peerAuthKey(counts[0])
	message := fmt.Sprintf("%s speaks for %s already, and is older; this one is ignored", c.ref(first), scope)
	tied := c.cfg.SameAge(first, peerAuthKey(pa))
	if tied {
		message = fmt.Sprintf("%s speaks for %s too, and nobody knows which is older; the stricter of them counts",
			c.ref(first), scope)
		counts = append(counts, pa)
	}
	c.find(peerAuthKey(pa), "ISM0031", finding.Error, "metadata.name", message, "remove one of them")
	return counts
}

// modes of one instance: for any port, and for single ports, with the objects that say so.
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

// modesOf an instance are worked out once: every port of every service that it serves asks.
func (c *compiler) modesOf(i *instance) modes {
	out, ok := c.modes[i]
	if !ok {
		if c.modes == nil {
			c.modes = map[*instance]modes{}
		}
		out = c.modesNow(i)
		c.modes[i] = out
	}
	return out
}

func (c *compiler) modesNow(i *instance) modes {
	if closed := c.closedBy(i); len(closed) > 0 {
		out := modes{any: model.Strict}
		for _, p := range closed {
			out.refs = append(out.refs, p.Ref)
		}
		return out
	}
	out := modes{any: c.defaultMode}
	for _, scope := range [][]*security.PeerAuthentication{
		c.mtls.mesh, c.mtls.byNamespace[i.namespace], c.selectedPeerAuths(i),
	} {
		out = c.narrowed(out, scope)
	}
	return out
}

// narrowed is what the objects of a narrower scope make of the modes of the wider one. Of several only those that make it
// stricter are named, since there may be thousands.
func (c *compiler) narrowed(wider modes, scope []*security.PeerAuthentication) modes {
	out := wider
	for n, pa := range scope {
		if n > 0 && out.any == model.Strict && len(out.ports) == 0 {
			break // nothing is stricter
		}
		one := modes{any: istioMode(pa.Spec.GetMtls(), wider.any)}
		if len(pa.Spec.GetSelector().GetMatchLabels()) > 0 {
			one.ports = map[uint32]model.MTLSMode{}
			for port, m := range pa.Spec.PortLevelMtls {
				one.ports[port] = istioMode(m, one.any)
			}
		}
		refs := slices.Clip(out.refs)
		if n > 0 {
			if one = stricter(out, one); one.any == out.any && maps.Equal(one.ports, out.ports) {
				continue
			}
		}
		one.refs = append(refs, c.ref(peerAuthKey(pa)))
		out = one
	}
	return out
}

// stricter takes for each port the stricter of two modes; refs are the second's.
func stricter(a, b modes) modes {
	out := modes{any: min(a.any, b.any), ports: map[uint32]model.MTLSMode{}, refs: b.refs}
	for _, ports := range []map[uint32]model.MTLSMode{a.ports, b.ports} {
		for p := range ports {
			out.ports[p] = min(a.of(uint16(p)), b.of(uint16(p)))
		}
	}
	return out
}

// selectedPeerAuths are the objects with a selector that count for an instance: the oldest that selects it, and those
// of the same age.
func (c *compiler) selectedPeerAuths(i *instance) []*security.PeerAuthentication {
	var out []*security.PeerAuthentication
	for _, pa := range c.mtls.bySelector[i.namespace] {
		if i.selectedBy(pa.Spec.Selector.MatchLabels) {
			if len(out) > 0 && !c.cfg.SameAge(peerAuthKey(out[0]), peerAuthKey(pa)) {
				break
			}
			out = append(out, pa)
		}
	}
	return out
}

// reportOverlaps names, once, each object that selects something which an older one selects too.
func (c *compiler) reportOverlaps() {
	for _, ns := range slices.Sorted(maps.Keys(c.mtls.bySelector)) {
		all := c.mtls.bySelector[ns]
		if len(all) < 2 || c.backends[ns] == nil {
			continue
		}
		said := make([]bool, len(all))
		for _, i := range c.backends[ns].all {
			first := -1
			for n, pa := range all {
				switch {
				case !i.selectedBy(pa.Spec.Selector.MatchLabels):
				case first < 0:
					first = n
				case !said[n]:
					said[n] = true
					c.nextPeerAuth(all[first:first+1], pa, "workload "+i.namespace+"/"+i.name)
				}
			}
		}
	}
}

func istioMode(m *istiosec.PeerAuthentication_MutualTLS, inherited model.MTLSMode) model.MTLSMode {
	return mode(m.GetMode().String(), inherited)
}

func mode(s string, otherwise model.MTLSMode) model.MTLSMode {
	switch s {
	case "STRICT":
		return model.Strict
	case "PERMISSIVE":
		return model.Permissive
	case "DISABLE":
		return model.Disable
	}
	return otherwise
}

// speaksMTLS says whether callers use mutual TLS: they do unless every server of the port has it disabled.
func (c *compiler) speaksMTLS(is []backing) bool {
	for _, i := range is {
		if i.identity != "" && c.modesOf(i.instance).of(i.number) != model.Disable {
			return true
		}
	}
	return false
}

// listen records that a workload serves a port for a service.
func (c *compiler) listen(w *model.Workload, number uint16, p model.Protocol, svc *model.Service) {
	for n := range w.Inbound {
		in := &w.Inbound[n]
		if in.Port != number {
			continue
		}
		if in.Protocol != p {
			c.findings = append(c.findings, finding.Finding{
				Code: "ISM0032", Severity: finding.Error, Object: "workload " + w.ID.String(),
				Message: fmt.Sprintf("port %d is %s for one service and %s for %s; %s is kept", number, in.Protocol, p, svc.Host, in.Protocol),
				Remedy:  "give the port the same protocol (name or appProtocol) in each Service that selects the workload",
			})
			return
		}
		in.Hosts = append(in.Hosts, model.HostNames(svc, c.mesh.Domain)...)
		in.Refs = append(in.Refs, svc.Refs...)
		return
	}
	w.Inbound = append(w.Inbound, model.Inbound{
		Port: number, Protocol: p, Hosts: model.HostNames(svc, c.mesh.Domain), Refs: slices.Clone(svc.Refs),
	})
}

// workloads settles, for each registered workload, the mode and the policies of each port.
func workloads(c *compiler) {
	c.reportOverlaps()
	for _, is := range slices.Sorted(maps.Keys(c.backends)) {
		for _, i := range c.backends[is].all {
			if i.workload == nil {
				continue
			}
			w, m := i.workload, c.modesOf(i)
			w.Mode, w.Refs = m.any, m.refs
			for _, number := range i.ports {
				if !slices.ContainsFunc(w.Inbound, func(in model.Inbound) bool { return in.Port == number }) {
					w.Inbound = append(w.Inbound, model.Inbound{Port: number})
				}
			}
			slices.SortFunc(w.Inbound, func(a, b model.Inbound) int { return int(a.Port) - int(b.Port) })
			policies := c.policiesOf(i)
			for n := range w.Inbound {
				in := &w.Inbound[n]
				in.Mode, in.Policies = m.of(in.Port), atPort(policies, in.Port)
				slices.Sort(in.Hosts)
				in.Hosts = slices.Compact(in.Hosts)
			}
		}
	}
}
