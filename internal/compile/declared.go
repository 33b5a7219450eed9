package compile

import (
	"fmt"
	"maps"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/snapshot"
)

// declared indexes WorkloadEntries by name. A registered workload of that name is the one that the entry declares.
func declared(entries []*networking.WorkloadEntry) map[string]*networking.WorkloadEntry {
	out := make(map[string]*networking.WorkloadEntry, len(entries))
	for _, e := range entries {
		out[e.Name] = e
	}
	return out
}

// declare applies a WorkloadEntry to its registered workload: labels, ports and weight come from the entry. It returns
// false if the workload contradicts the entry; the workload then does not serve under that name.
func (u *unit) declare(i *instance, w registered, e *networking.WorkloadEntry) bool {
	said := u.entryInstance(e.Name, &e.Spec)
	contradicts := func(field, declared, registered string) bool {
		u.find(snapshot.KeyOf(e), "ISM0245", field,
			fmt.Sprintf("node %s registers this workload with %s instead of %s; it is not registered", w.Node,
				registered, declared),
			"correct the entry, or the workload in the settings of node "+w.Node)
		return false
	}
	if said.identity != "" && said.identity != i.identity {
		return contradicts("spec.serviceAccount", e.Spec.ServiceAccount, "service account "+w.ServiceAccount)
	}
	for _, a := range said.addrs {
		if !slices.Contains(w.Addresses, a) {
			return contradicts("spec.address", a.String(), fmt.Sprintf("addresses %v", w.Addresses))
		}
	}
	i.labels, i.weight = said.labels, said.weight
	maps.Copy(i.ports, said.ports)
	return true
}
