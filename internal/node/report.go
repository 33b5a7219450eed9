package node

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
)

// reportChanged signals that the report may have changed.
func (a *Agent) reportChanged() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// report is everything that the agent tells the control plane.
func (a *Agent) report() agentapi.Report {
	r := agentapi.Report{
		Version: a.cfg.Version, Builtin: envoy.BuiltinVersion(), Envoy: a.envoyState(), Sidecars: a.sidecarStates(),
		Certs: a.certs(),
	}
	if r.Gateway = a.cfg.GatewayInfo(); r.Gateway != nil {
		r.Peers, r.Elsewhere = a.logs.Peers(), notOnThisHost(slices.Concat(r.Gateway.Inner(), r.Gateway.Outer()))
	}
	sockets := a.workloads.Troubles()
	for _, h := range a.namespaces {
		if t := h.trouble.Load(); t != nil {
			r.Troubles = append(r.Troubles, *t)
		} else if err := sockets[h.workload.Key()]; err != nil {
			r.Troubles = append(r.Troubles, snapshot.Trouble{Workload: h.workload.Key(), Reason: err.Error()})
		}
		o := h.bypassing()
		callers := a.plaintextCallers(h.workload.Key())
		o.Plaintext, o.PlaintextCount = callers[:min(len(callers), mostShown)], len(callers)
		if o.Count+len(o.Ports)+o.PlaintextCount > 0 {
			r.Outside = append(r.Outside, o)
		}
		if s := h.served(); s != nil {
			w := h.workload.Registered(a.cfg.Name, s.alias, a.cfg.Mode == Sidecar, a.probes.Ready(h.workload.Key()) &&
				!a.leaving.Load())
			w.Addresses = *s.addresses.Load()
			r.Workloads = append(r.Workloads, w)
			continue
		}
		w := h.workload.Registered(a.cfg.Name, "", a.cfg.Mode == Sidecar, false)
		w.Away = true // it keeps its name and addresses
		r.Workloads = append(r.Workloads, w)
	}
	return r
}

// notOnThisHost returns a gateway's addresses that this host does not have, so that nobody could listen there.
func notOnThisHost(addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
		if err == nil {
			l.Close()
		} else if errors.Is(err, syscall.EADDRNOTAVAIL) {
			out = append(out, a)
		}
	}
	return out
}

func (a *Agent) certs() []agentapi.CertState {
	certs := a.sds.Certs()
	if own := a.control.Identity(); own != nil {
		certs = append(certs, own.State())
	}
	return certs
}

// Registered returns the workload as the control plane keeps it.
func (w Workload) Registered(node, netns string, sidecar, ready bool) snapshot.Workload {
	out := snapshot.Workload{
		Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, Node: node,
		Labels: w.Labels, Addresses: w.Addresses, Netns: netns, Sidecar: sidecar, Ready: ready,
	}
	for _, p := range w.Ports {
		out.Ports = append(out.Ports, snapshot.WorkloadPort{Name: p.Name, Number: p.Number})
	}
	return out
}
