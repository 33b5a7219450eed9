package view

import (
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// MayBeNear says whether calls to a destination may be handed over, should the proxy serve it itself. What peers may
// come to serve too, what is resolved by name and what is called in plaintext goes by the network.
func (v *View) MayBeNear(o model.Outbound) bool {
	return v.HandOver && !o.Route.Changing && !o.Route.Resolved && o.Port.MTLS
}

// near finds the destinations that the proxy serves itself, wholly or in part.
func (v *View) near() map[model.EndpointSet][]model.WorkloadID {
	here := map[model.WorkloadID]bool{}
	for _, w := range v.Workloads {
		if len(w.Addrs) == 0 {
			return nil // whoever is called must be told where the call comes from
		}
		here[w.ID] = true
	}
	out := map[model.EndpointSet][]model.WorkloadID{}
	for _, w := range v.Workloads {
		for _, o := range w.Outbound {
			set := o.Route.Set
			if _, known := out[set]; known || !v.MayBeNear(o) {
				continue
			}
			for _, by := range o.Port.Workloads {
				if here[by] {
					out[set] = append(out[set], by)
				}
			}
		}
	}
	for set, by := range out {
		if len(by) == 0 {
			delete(out, set)
		}
	}
	return out
}

// SetOf is the form in which this proxy is told the endpoints of a destination.
func (v *View) SetOf(o model.Outbound) model.EndpointSet {
	set := o.Route.Set
	if v.MayBeNear(o) && len(v.Near[set]) > 0 {
		set.Proxy = v.Proxy.Name
	}
	return set
}

// Called says whether a workload of the proxy is called by another one, or by itself.
func (v *View) Called(w *model.Workload) bool {
	for _, by := range v.Near {
		if slices.Contains(by, w.ID) {
			return true
		}
	}
	return false
}
