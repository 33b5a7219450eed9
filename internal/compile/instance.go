package compile

import (
	"fmt"
	"net/netip"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// instance is a potential server: a registered workload or a WorkloadEntry.
type instance struct {
	namespace, name string
	labels          map[string]string
	identity        string // SPIFFE ID; empty if it has none
	addrs           []netip.Addr
	host            string            // a host name to resolve, instead of addrs
	ports           map[string]uint16 // by name
	weight          uint32
	ready           bool
	silent          bool            // its node is silent, so others are preferred
	workload        *model.Workload // nil for a WorkloadEntry
	policyKey       string          // set once unit.policyKey was called
}

func (i *instance) selectedBy(selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := i.labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// backends are the instances of one namespace, indexed by label.
type backends struct {
	all     []*instance
	byLabel map[label][]*instance
}

type label struct{ key, value string }

func (b *backends) add(i *instance) {
	b.all = append(b.all, i)
	for k, v := range i.labels {
		b.byLabel[label{k, v}] = append(b.byLabel[label{k, v}], i)
	}
}

// selected returns the instances with these labels. An empty selector selects none (Kubernetes: its endpoints are
// written by hand). The cost depends on the rarest label.
func (b *backends) selected(selector map[string]string) []*instance {
	if len(selector) == 0 {
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

// instances collects the registered workloads, and the WorkloadEntries without a registered workload.
func (u *unit) instances() {
	u.registered = map[string]*model.Workload{}
	entries := declared(snapshot.Of[*networking.WorkloadEntry](u.objects))
	for _, w := range elements(u.workloads) {
		key := kind.Workload(w.Namespace, w.Name)
		u.guarded(key, func() { u.addWorkload(w, entries[w.Name]) })
	}
	for _, we := range snapshot.Of[*networking.WorkloadEntry](u.objects) {
		if u.registered[we.Name] == nil {
			u.guarded(snapshot.KeyOf(we), func() {
				if i := u.entryInstance(we.Name, &we.Spec); i.host == "" {
					u.backends.add(i)
				}
			})
		}
	}
}

func (u *unit) addWorkload(w registered, entry *networking.WorkloadEntry) {
	id, err := spiffe.Workload(u.mesh.trustDomain, w.Namespace, w.ServiceAccount)
	if err != nil {
		u.findings = append(u.findings, finding.New("ISM0011",
			kind.Workload(w.Namespace, w.Name), "serviceAccount",
			fmt.Sprintf("no identity can be made of namespace %q and service account %q: %v", w.Namespace,
				w.ServiceAccount, err),
			"correct the workload in the configuration of node "+w.Node))
		return
	}
	wl := &model.Workload{
		ID: model.WorkloadID{Namespace: w.Namespace, Name: w.Name}, Node: w.Node, Identity: id, Netns: w.Netns,
		Sidecar: w.Sidecar, Addrs: w.Addresses,
	}
	if other := u.registered[w.Name]; other != nil {
		u.findings = append(u.findings, finding.New("ISM0012",
			kind.Workload(w.Namespace, w.Name), "",
			fmt.Sprintf("registered by node %s and by node %s; the latter is ignored", other.Node, w.Node),
			"rename one of them in its node's configuration"))
		return
	}
	ports := make(map[string]uint16, len(w.Ports))
	for _, p := range w.Ports {
		ports[portKey(p.Name, p.Number)] = p.Number
	}
	i := &instance{
		namespace: w.Namespace, name: w.Name, labels: w.Labels, identity: id.String(), addrs: w.Addresses,
		ports: ports, weight: 1, ready: w.Ready, workload: wl,
		silent: w.silent,
	}
	if entry != nil && !u.declare(i, w, entry) {
		return
	}
	if u.isClosed(w.Name) {
		i.ready = false // its entry defines its ports
	}
	u.registered[w.Name] = wl
	u.hosted = append(u.hosted, wl)
	u.backends.add(i)
}

// portKey returns a port's name, or its number if it has none.
func portKey(name string, number uint16) string {
	if name == "" {
		return fmt.Sprint(number)
	}
	return name
}
