package compile

import (
	"fmt"
	"net/netip"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// instance is one thing that can serve: a registered workload, or a WorkloadEntry.
type instance struct {
	namespace, name string
	labels          map[string]string
	identity        string // SPIFFE ID, empty when it has none
	addrs           []netip.Addr
	host            string            // instead of addrs: to be looked up
	ports           map[string]uint16 // by name
	weight          uint32
	ready           bool
	silent          bool            // its node is: others are to be called, if there are any
	workload        *model.Workload // nil for a WorkloadEntry
}

func (i *instance) selectedBy(selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := i.labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// backends are the instances of one namespace, findable by label.
type backends struct {
	all     []*instance
	byLabel map[label][]*instance
}

type label struct{ key, value string }

func (c *compiler) addBackend(i *instance) {
	b := c.backends[i.namespace]
	if b == nil {
		b = &backends{byLabel: map[label][]*instance{}}
		c.backends[i.namespace] = b
	}
	b.all = append(b.all, i)
	for k, v := range i.labels {
		b.byLabel[label{k, v}] = append(b.byLabel[label{k, v}], i)
	}
}

// selected are the instances of a namespace with the labels; an empty selector selects none (Kubernetes: its endpoints are
// written by hand). The cost is in the rarest label, not in the namespace.
func (c *compiler) selected(namespace string, selector map[string]string) []*instance {
	b := c.backends[namespace]
	if b == nil || len(selector) == 0 {
		return nil
	}
	rarest := b.all
	for k, v := range selector {
		if with := b.byLabel[label{k, v}]; len(with) < len(rarest) {
			rarest = with
		}
	}
	var out []*instance
	for _, i := range rarest {
		if i.selectedBy(selector) {
			out = append(out, i)
		}
	}
	return out
}

func instances(c *compiler) {
	c.backends = map[string]*backends{}
	entries := declared(snapshot.Of[*networking.WorkloadEntry](c.cfg))
	if c.snap.Registry != nil {
		for i := range c.snap.Registry.Workloads {
			w := &c.snap.Registry.Workloads[i]
			c.guarded(snapshot.Key{Kind: "Workload", Namespace: w.Namespace, Name: w.Name}, func() { c.addWorkload(w, entries) })
		}
	}
	for _, we := range snapshot.Of[*networking.WorkloadEntry](c.cfg) {
		if c.mesh.Workloads[model.WorkloadID{Namespace: we.Namespace, Name: we.Name}] != nil {
			continue // a node has registered it
		}
		key := snapshot.Key{Kind: "WorkloadEntry", Namespace: we.Namespace, Name: we.Name}
		c.guarded(key, func() { c.addEntry(key, we) })
	}
}

func (c *compiler) addEntry(key snapshot.Key, we *networking.WorkloadEntry) {
	if inst := entryInstance(c.mesh.TrustDomain, we.Namespace, we.Name, &we.Spec); inst.host == "" {
		c.addBackend(inst)
		return
	}
	c.find(key, "ISM0010", finding.Error, "spec.address", fmt.Sprintf("%q is no IP address", we.Spec.Address),
		"give the address of the workload; host names are for ServiceEntry endpoints with resolution DNS")
}

func (c *compiler) addWorkload(w *snapshot.Workload, entries map[model.WorkloadID]*networking.WorkloadEntry) {
	id, err := spiffe.Workload(c.mesh.TrustDomain, w.Namespace, w.ServiceAccount)
	if err != nil {
		c.findings = append(c.findings, finding.Finding{
			Code: "ISM0011", Severity: finding.Error, Object: "workload " + w.Namespace + "/" + w.Name, Field: "serviceAccount",
			Message: fmt.Sprintf("no identity can be made of namespace %q and service account %q: %v", w.Namespace, w.ServiceAccount, err),
			Remedy:  "correct the workload in the configuration of node " + w.Node,
		})
		return
	}
	wl := &model.Workload{
		ID: model.WorkloadID{Namespace: w.Namespace, Name: w.Name}, Node: w.Node, Identity: id, Netns: w.Netns, Sidecar: w.Sidecar, Addrs: w.Addresses,
	}
	if other, taken := c.mesh.Workloads[wl.ID]; taken {
		c.findings = append(c.findings, finding.Finding{
			Code: "ISM0012", Severity: finding.Error, Object: "workload " + wl.ID.String(),
			Message: fmt.Sprintf("registered by node %s and by node %s; the latter is ignored", other.Node, w.Node),
			Remedy:  "rename one of them in its node's configuration",
		})
		return
	}
	ports := make(map[string]uint16, len(w.Ports))
	for _, p := range w.Ports {
		ports[portKey(p.Name, p.Number)] = p.Number
	}
	i := &instance{
		namespace: w.Namespace, name: w.Name, labels: w.Labels, identity: id.String(), addrs: w.Addresses,
		ports: ports, weight: 1, ready: w.Ready, workload: wl,
		silent: slices.ContainsFunc(c.snap.SilentNodes, func(n snapshot.SilentNode) bool { return n.Name == w.Node }),
	}
	if e := entries[wl.ID]; e != nil && !c.declare(i, w, e) {
		return
	}
	if c.isClosed(wl.ID) {
		i.ready = false // what it would serve, its entry says
	}
	c.mesh.Workloads[wl.ID] = wl
	c.addBackend(i)
}

// portKey is a port's name, or its number where it has none.
func portKey(name string, number uint16) string {
	if name == "" {
		return fmt.Sprint(number)
	}
	return name
}
