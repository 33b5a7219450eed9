package compile

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A destination is a host and a port. Each is a cluster in the Envoy of every workload that may call it, and an Envoy
// that is told of very many is no longer there for anybody. So they have bounds, and where those are reached the oldest
// stand.
const (
	maxMeshDestinations      = 131_072 // that the mesh serves
	maxNamespaceDestinations = 8_192   // that one namespace serves
	maxWorkloadDestinations  = 2_048   // that one workload may call
	maxProxyDestinations     = 32_768  // that all workloads of one proxy may call
)

// room counts destinations.
type room struct {
	served  int
	used    map[string]int            // by namespace that serves
	without map[string][]snapshot.Key // by namespace: what had no room in it
	refused []snapshot.Key            // what had no room in the mesh
	left    map[string]int            // by namespace of the services: how often a workload is not told
}

// hasRoom takes room for the ports of a host; objects come oldest first.
func (c *compiler) hasRoom(key snapshot.Key, ports int) bool {
	if c.room.used == nil {
		c.room.used, c.room.without = map[string]int{}, map[string][]snapshot.Key{}
	}
	switch {
	case c.room.used[key.Namespace]+ports > maxNamespaceDestinations:
		c.room.without[key.Namespace] = append(c.room.without[key.Namespace], key)
		return false
	case c.room.served+ports > maxMeshDestinations:
		c.room.refused = append(c.room.refused, key)
		return false
	}
	c.room.used[key.Namespace] += ports
	c.room.served += ports
	return true
}

// reportNoRoom names, for each namespace and for the mesh, the oldest object that had no room.
func (c *compiler) reportNoRoom() {
	report := func(code, who string, most int, keys []snapshot.Key) {
		c.find(keys[0], code, finding.Error, "metadata.namespace", fmt.Sprintf(
			"%s serves more than %d hosts and ports; this object and younger ones are not "+
				"served, %d hosts in all", who, most, len(keys)),
			"serve fewer, or remove what nobody calls")
	}
	for _, ns := range sortedKeys(c.room.without) {
		report("ISM0209", "namespace "+ns, maxNamespaceDestinations, c.room.without[ns])
	}
	if len(c.room.refused) > 0 {
		report("ISM0215", "the mesh", maxMeshDestinations, c.room.refused)
	}
}

// oldest sorts services by their age.
func (c *compiler) oldest(services iter.Seq[*model.Service]) []*model.Service {
	return slices.SortedFunc(services, func(a, b *model.Service) int {
		return cmp.Or(c.cfg.Older(c.keys[a], c.keys[b]), cmp.Compare(a.Host, b.Host))
	})
}

// leaveOut counts workloads that are not told of a port of a service.
func (c *compiler) leaveOut(svc *model.Service, n int) {
	if c.room.left == nil {
		c.room.left = map[string]int{}
	}
	c.room.left[svc.ID.Namespace] += n
}

// limitProxies leaves out the youngest destinations of proxies whose workloads may call too many, and reports all that
// is left out.
func (c *compiler) limitProxies() {
	proxies := map[string][]*model.Workload{}
	for _, w := range c.mesh.Workloads {
		proxies[w.Proxy()] = append(proxies[w.Proxy()], w)
	}
	for _, ws := range proxies {
		c.limitProxy(ws)
	}
	for _, ns := range sortedKeys(c.room.left) {
		c.findings = append(c.findings, finding.Finding{
			Code: "ISM0208", Severity: finding.Error, Object: "Namespace " + ns,
			Message: fmt.Sprintf("its services are the youngest of more hosts and ports than a workload may "+
				"call (%d) or a proxy's "+
				"workloads (%d); they are left out %d times", maxWorkloadDestinations, maxProxyDestinations, c.room.left[ns]),
			Remedy: "limit who sees a ServiceEntry with exportTo, and whom policies allow, or serve fewer",
		})
	}
}

func (c *compiler) limitProxy(ws []*model.Workload) {
	times := map[*model.Service]int{} // how often each is called
	n := 0
	for _, w := range ws {
		n += len(w.Outbound)
	}
	if n <= maxProxyDestinations {
		return
	}
	for _, w := range ws {
		for _, o := range w.Outbound {
			times[o.Service]++
		}
	}
	left := maxProxyDestinations
	for _, svc := range c.oldest(maps.Keys(times)) {
		if times[svc] <= left {
			left -= times[svc]
			delete(times, svc) // it stands
			continue
		}
		c.leaveOut(svc, times[svc])
	}
	for _, w := range ws {
		w.Outbound = slices.DeleteFunc(w.Outbound, func(o model.Outbound) bool { return times[o.Service] > 0 })
	}
}

// isCrowded says whether a mesh holds more than it has room for.
func isCrowded(m *model.Mesh) bool {
	proxies, served := map[string]int{}, 0
	for _, w := range m.Workloads {
		proxies[w.Proxy()] += len(w.Outbound)
		if len(w.Outbound) > maxWorkloadDestinations || proxies[w.Proxy()] > maxProxyDestinations {
			return true
		}
	}
	for _, svc := range m.Services {
		served += len(svc.Ports)
	}
	return served > maxMeshDestinations
}
