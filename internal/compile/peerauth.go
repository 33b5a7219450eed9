package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// peerAuthIndex finds the PeerAuthentication that applies: workload over namespace over mesh (Istio: PeerAuthentication).
type peerAuthIndex struct {
	mesh        *security.PeerAuthentication
	byNamespace map[string]*security.PeerAuthentication
	bySelector  map[string][]*security.PeerAuthentication // by namespace, oldest first
}

func peerAuths(c *compiler) {
	idx := peerAuthIndex{byNamespace: map[string]*security.PeerAuthentication{}, bySelector: map[string][]*security.PeerAuthentication{}}
	sorted := slices.SortedFunc(slices.Values(c.cfg.PeerAuthentications), func(a, b *security.PeerAuthentication) int {
		return older(&a.ObjectMeta, &b.ObjectMeta)
	})
	for _, pa := range sorted {
		key := snapshot.Key{Kind: "PeerAuthentication", Namespace: pa.Namespace, Name: pa.Name}
		selected := len(pa.Spec.GetSelector().GetMatchLabels()) > 0
		switch {
		case selected && pa.Namespace == c.mesh.RootNamespace:
			c.find(key, "ISM0030", finding.Warning, "spec.selector", "a selector in the root namespace has no effect; the object is ignored", "move it to the workload's namespace")
		case selected:
			idx.bySelector[pa.Namespace] = append(idx.bySelector[pa.Namespace], pa)
		case pa.Namespace == c.mesh.RootNamespace && idx.mesh == nil:
			idx.mesh = pa
		case pa.Namespace != c.mesh.RootNamespace && idx.byNamespace[pa.Namespace] == nil:
			idx.byNamespace[pa.Namespace] = pa
		default:
			c.find(key, "ISM0031", finding.Error, "metadata.name", "an older PeerAuthentication already speaks for this scope; this one is ignored", "remove one of them")
		}
	}
	c.mtls = idx
}

// older orders objects as Istio does where only one may win: creation time, then name, then namespace.
func older(a, b *metav1.ObjectMeta) int {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		if a.CreationTimestamp.Before(&b.CreationTimestamp) {
			return -1
		}
		return 1
	}
	if n := strings.Compare(a.Name, b.Name); n != 0 {
		return n
	}
	return strings.Compare(a.Namespace, b.Namespace)
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

func (c *compiler) modesOf(i *instance) modes {
	out := modes{any: c.defaultMode}
	for _, pa := range []*security.PeerAuthentication{c.mtls.mesh, c.mtls.byNamespace[i.namespace], c.selectedPeerAuth(i)} {
		if pa == nil {
			continue
		}
		out.any = istioMode(pa.Spec.GetMtls(), out.any)
		out.refs = append(out.refs, c.ref(snapshot.Key{Kind: "PeerAuthentication", Namespace: pa.Namespace, Name: pa.Name}))
		if len(pa.Spec.GetSelector().GetMatchLabels()) > 0 {
			out.ports = map[uint32]model.MTLSMode{}
			for port, m := range pa.Spec.PortLevelMtls {
				out.ports[port] = istioMode(m, out.any)
			}
		}
	}
	return out
}

func (c *compiler) selectedPeerAuth(i *instance) *security.PeerAuthentication {
	for _, pa := range c.mtls.bySelector[i.namespace] {
		if i.selectedBy(pa.Spec.Selector.MatchLabels) {
			return pa
		}
	}
	return nil
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
