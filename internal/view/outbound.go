package view

import (
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// MayStayInside reports whether calls to a destination may be handed over inside the proxy, should the proxy serve it.
// Destinations that peers may serve too, that are resolved by DNS, or that are called in plaintext always use the
// network.
func (v *View) MayStayInside(d *model.Destination) bool {
	return v.HandOver && !d.Changing && !d.Resolved && d.Port.MTLS
}

// localServers finds the destinations that this proxy serves, at least in part.
func (v *View) localServers() map[model.EndpointSet][]model.WorkloadID {
	here := map[model.WorkloadID]bool{}
	for _, w := range v.Workloads {
		if len(w.Addrs) == 0 {
			return nil // the server must learn the caller's address
		}
		here[w.ID] = true
	}
	out := map[model.EndpointSet][]model.WorkloadID{}
	for _, w := range v.Workloads {
		for _, o := range w.Outbound {
			for _, d := range o.Destinations() {
				if _, known := out[d.Set]; known || !v.MayStayInside(d) {
					continue
				}
				for _, by := range d.Port.Workloads {
					if here[by] {
						out[d.Set] = append(out[d.Set], by)
					}
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

// SetOf returns the form of a destination's endpoint set that this proxy gets.
func (v *View) SetOf(d *model.Destination) model.EndpointSet {
	set := d.Set
	if v.MayStayInside(d) && len(v.Local[set]) > 0 {
		set.Proxy = v.Proxy.Name
	}
	return set
}

// Called reports whether a workload of the proxy is called by a workload of the proxy.
func (v *View) Called(w *model.Workload) bool {
	for _, by := range v.Local {
		if slices.Contains(by, w.ID) {
			return true
		}
	}
	return false
}
