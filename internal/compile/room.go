package compile

import (
	"cmp"
	"fmt"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	corev1 "k8s.io/api/core/v1"
)

// A destination is a host and a port. Each is a cluster in the Envoy of every workload that may call it, and an Envoy
// with too many of them stops serving. Hence these limits. When one is reached, the oldest destinations count.
const (
	maxMeshDestinations      = 131_072 // served by the mesh
	maxNamespaceDestinations = 8_192   // served by one namespace
	maxWorkloadDestinations  = 2_048   // callable by one workload
	maxProxyDestinations     = 32_768  // callable by all workloads of one proxy
)

// room counts destinations.
type room struct {
	served int
	used   map[string]int // by the serving namespace
}

// noRoom reports the oldest of the objects that had no room.
func (r *report) noRoom(code finding.Code, who string, most int, keys []snapshot.Key) {
	r.find(keys[0], code, "metadata.namespace", fmt.Sprintf(
		"%s serves more than %d hosts and ports; this object and younger ones are not "+
			"served, %d hosts in all", who, most, len(keys)))
}

// leftOut counts, by namespace of the service, how often a workload is not told of a port.
type leftOut map[string]int

func (l leftOut) findings() (out []finding.Finding) {
	for _, ns := range sortedKeys(l) {
		out = append(out, finding.New("ISM0208", snapshot.KeyFor[*corev1.Namespace]("", ns), "",
			fmt.Sprintf("its services are the youngest of more hosts and ports than a workload may "+
				"call (%d) or a proxy's "+
				"workloads (%d); they are left out %d times", maxWorkloadDestinations, maxProxyDestinations, l[ns])))
	}
	return out
}

// oldest sorts destinations by age.
func oldest(all []*destination) []*destination {
	slices.SortFunc(all, func(a, b *destination) int {
		return cmp.Or(a.age.compare(b.age), cmp.Compare(a.service.Host, b.service.Host))
	})
	return all
}

// limits holds the reduced destinations of workloads whose proxies would otherwise get too many; nil if there are none.
type limits struct {
	outbound *limitedOutbound // nil unless some proxy would get too many
	left     leftOut
}

// limitedOutbound is what the workloads of such proxies are told of.
type limitedOutbound map[model.WorkloadID][]model.Outbound

func (l *limitedOutbound) of(id model.WorkloadID) ([]model.Outbound, bool) {
	if l == nil {
		return nil, false
	}
	list, ok := (*l)[id]
	return list, ok
}

func (l *linker) limit() *limits {
	out, left := &limits{left: leftOut{}}, l.now.calls.out.left
	n := map[string]int{}
	for _, ns := range l.in.sorted {
		for _, w := range elements(l.parts[ns].workloads) {
			id := w.Identity.String()
			n[w.Proxy()] += len(l.now.calls.out.of[id])
			for service, times := range left[id] {
				out.left[service] += times
			}
		}
	}
	for proxy, n := range n {
		if n > maxProxyDestinations {
			if out.outbound == nil {
				out.outbound = &limitedOutbound{}
			}
			l.limitProxy(proxy, *out.outbound, out.left)
		}
	}
	return out
}

// limitProxy removes the youngest services that a proxy's workloads may call.
func (l *linker) limitProxy(proxy string, out map[model.WorkloadID][]model.Outbound, left leftOut) {
	times := map[string]int{} // how often each host is called
	lists := map[model.WorkloadID][]model.Outbound{}
	for _, ns := range l.in.sorted {
		for _, w := range elements(l.parts[ns].workloads) {
			if w.Proxy() != proxy {
				continue
			}
			lists[w.ID] = l.now.calls.out.of[w.Identity.String()]
			for _, o := range lists[w.ID] {
				times[o.Service.Host]++
			}
		}
	}
	var called []*destination
	for _, ns := range l.in.sorted {
		for _, d := range elements(l.now.destinations[ns].out) {
			if times[d.service.Host] > 0 {
				called = append(called, d)
			}
		}
	}
	room := maxProxyDestinations
	for _, d := range oldest(called) {
		host := d.service.Host
		if times[host] <= room {
			room -= times[host]
			delete(times, host) // it stays
			continue
		}
		left[d.service.ID.Namespace] += times[host]
	}
	for id, list := range lists {
		out[id] = slices.DeleteFunc(slices.Clone(list),
			func(o model.Outbound) bool { return times[o.Service.Host] > 0 })
	}
}
