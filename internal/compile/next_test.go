package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	istionet "istio.io/api/networking/v1alpha3"
	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestNextIsMesh changes a world at random, one thing at a time, and demands that what was compiled before makes no
// difference, and that nobody writes to it.
func TestNextIsMesh(t *testing.T) {
	reused, endpoints, crossing := 0, 0, 0
	kinds, varied := map[string]bool{}, map[string]bool{}
	for seed := range uint64(40) {
		w := newWorld(t, seed)
		var last *Compiled
		for step := range 60 {
			what := w.change()
			snap := w.snapshot()
			next := Next(last, snap)
			mesh, findings := Mesh(snap)
			if !reflect.DeepEqual(inOrder(findings), inOrder(next.Findings)) {
				t.Fatalf("seed %d step %d (%s): findings\n%v\nwant\n%v", seed, step, what, next.Findings, findings)
			}
			if !reflect.DeepEqual(mesh, next.Mesh) {
				t.Fatalf("seed %d step %d (%s): the mesh is another one\n%s", seed, step, what,
					difference(reflect.ValueOf(mesh), reflect.ValueOf(next.Mesh), "mesh"))
			}
			if last != nil {
				before, now := reflect.ValueOf(*last.Snapshot), reflect.ValueOf(*snap)
				for i := range now.NumField() {
					if !reflect.DeepEqual(before.Field(i).Interface(), now.Field(i).Interface()) {
						varied[now.Type().Field(i).Name] = true
					}
				}
				again, findings := Mesh(last.Snapshot)
				if !reflect.DeepEqual(again, last.Mesh) ||
					!reflect.DeepEqual(inOrder(findings), inOrder(last.Findings)) {
					t.Fatalf("seed %d step %d (%s): what was compiled before is written to", seed, step, what)
				}
				for ns, u := range next.units {
					if was := last.units[ns]; was != nil && was.part == u.part {
						reused++
					}
				}
				if next.OnlyEndpoints {
					endpoints++
				}
			}
			if len(mesh.Gateways) > 0 && len(mesh.Exports) > 0 && len(mesh.Imports) > 0 {
				crossing++
			}
			for o := range snap.Config.Objects.All() {
				kinds[o.Key.Kind] = true
			}
			last = next
		}
	}
	for _, k := range kind.All {
		if !kinds[k.Name] {
			t.Errorf("the world of this test has no %s: let world.change put one, and take it away", k.Name)
		}
	}
	for _, name := range []string{"Reports", "Contained"} { // only findings come of them, and not in Next
		varied[name] = true
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[snapshot.Snapshot]()) {
		if !varied[f.Name] {
			t.Errorf("Snapshot.%s is always the same in this test: let world.change change it", f.Name)
		}
	}
	if reused < 5000 || endpoints < 80 || crossing < 200 {
		t.Errorf("only %d parts were reused, %d steps changed endpoints alone, in %d something crossed; the test proves too little",
			reused, endpoints, crossing)
	}
}

// TestAddressesThatComeLater: services get their virtual addresses after they were compiled without.
func TestAddressesThatComeLater(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		for range 30 {
			w.change()
		}
		before := w.snapshot()
		before.VIPs = nil
		snap := w.snapshot()
		want, _ := Mesh(snap)
		if got := Next(Next(nil, before), snap).Mesh; !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d: %s", seed, difference(reflect.ValueOf(want), reflect.ValueOf(got), "mesh"))
		}
	}
}

// A service that comes with a virtual address which another namespace's ServiceEntry has is no matter of its own
// namespace.
func TestNextSeesAddressesMeet(t *testing.T) {
	for _, taken := range []string{"240.240.1.200", "100::240.240.1.200"} {
		w := newWorld(t, 1)
		clear(w.sv)
		a, b := worldNamespaces[0], worldNamespaces[1]
		w.vips["late."+a+".svc.cluster.local"] = netip.MustParseAddr("240.240.1.200")
		w.se["first"] = &networking.ServiceEntry{ObjectMeta: w.meta(b, "first"), Spec: istionet.ServiceEntry{
			Hosts: []string{"first.example.com"}, Addresses: []string{taken}, Resolution: istionet.ServiceEntry_STATIC,
			Ports:     []*istionet.ServicePort{{Number: 80, Name: "tcp"}},
			Endpoints: []*istionet.WorkloadEntry{{Address: "192.0.2.1"}},
		}}
		before := Next(nil, w.snapshot())
		w.sv["late"] = &corev1.Service{ObjectMeta: w.meta(a, "late"), Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "x"}, Ports: []corev1.ServicePort{{Name: "tcp", Port: 80}},
		}}
		snap := w.snapshot()
		_, findings := Mesh(snap)
		if next := Next(before, snap); !reflect.DeepEqual(findings, inOrder(next.Findings)) ||
			!slices.ContainsFunc(findings, func(f finding.Finding) bool { return f.Code == "ISM0025" }) {
			t.Errorf("%s: findings\n%v\nwant\n%v", taken, next.Findings, findings)
		}
	}
}

// A new identity that the policies of only some servers of a service name is found.
func TestNextAsksEveryServer(t *testing.T) {
	for _, account := range []string{"x", "y"} {
		w := newWorld(t, 1)
		clear(w.ap)
		clear(w.imports)
		clear(w.wl)
		clear(w.sv)
		w.sv["web"] = &corev1.Service{ObjectMeta: w.meta("a", "web"), Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		}}
		w.allocate("web.a.svc.cluster.local")
		for version, named := range map[string]string{"1": "x", "2": "y"} {
			labels := map[string]string{"app": "web", "version": version}
			w.we[version] = &networking.WorkloadEntry{
				ObjectMeta: w.meta("a", "web-"+version),
				Spec: istionet.WorkloadEntry{
					Address: "192.0.2." + version, Labels: labels, ServiceAccount: "web",
				},
			}
			p := &security.AuthorizationPolicy{ObjectMeta: w.meta("a", version)}
			p.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: labels}
			p.Spec.Rules = []*istiosec.Rule{{From: []*istiosec.Rule_From{{Source: &istiosec.Source{
				Principals: []string{"m.example/ns/b/sa/" + named},
			}}}}}
			w.ap[version] = p
		}
		before := Next(nil, w.snapshot())
		w.wl["late"] = w.workload("b", account)
		late := Next(before, w.snapshot()).Mesh.Workloads[model.WorkloadID{Namespace: "b", Name: account}]
		if len(late.Outbound) != 1 || late.Outbound[0].Service.Host != "web.a.svc.cluster.local" {
			t.Errorf("%s may call %v", account, late.Outbound)
		}
	}
}

// inOrder is nil for no findings.
func inOrder(list []finding.Finding) []finding.Finding {
	list = slices.Clone(list)
	finding.Sort(list)
	if len(list) == 0 {
		return nil
	}
	return list
}

// difference names the first place where two values differ.
func difference(a, b reflect.Value, path string) string {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	switch a.Kind() {
	case reflect.Pointer:
		if !a.IsNil() && !b.IsNil() {
			return difference(a.Elem(), b.Elem(), path)
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if !a.Type().Field(i).IsExported() {
				break
			}
			if d := difference(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name); d != "" {
				return d
			}
		}
	case reflect.Map:
		for _, k := range append(a.MapKeys(), b.MapKeys()...) {
			x, y := a.MapIndex(k), b.MapIndex(k)
			if !x.IsValid() || !y.IsValid() {
				return fmt.Sprintf("%s[%v] is only in one", path, k)
			}
			if d := difference(x, y, fmt.Sprintf("%s[%v]", path, k)); d != "" {
				return d
			}
		}
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if d := difference(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i)); d != "" {
				return d
			}
		}
	}
	return fmt.Sprintf("%s: want %+v, got %+v", path, a.Interface(), b.Interface())
}

// world is a small mesh that changes. Objects are replaced, never written, as the file source does.
type world struct {
	rand *rand.Rand
	mesh *v1alpha1.Mesh
	sv   map[string]*corev1.Service
	ap   map[string]*security.AuthorizationPolicy
	pa   map[string]*security.PeerAuthentication
	se   map[string]*networking.ServiceEntry
	sc   map[string]*networking.Sidecar
	we   map[string]*networking.WorkloadEntry
	wl   map[string]snapshot.Workload
	vips map[string]netip.Addr

	imports  map[string]*v1alpha1.FederatedImport
	exports  map[string]*v1alpha1.FederatedExport
	peers    map[string]snapshot.PeerState
	meshes   map[string]*v1alpha1.MeshPeer
	gateways int
	silent   []snapshot.SilentNode
	written  map[string]*corev1.Namespace

	around  snapshot.Snapshot // what is neither configured nor registered
	reached netip.Addr        // by gateways' agents
	builtin string            // of all agents
	last    *snapshot.Snapshot

	closed  []snapshot.Closed
	origins map[snapshot.Key]snapshot.Origin
	objects *snapshot.Objects
	line    int
}

var (
	worldNamespaces = []string{"a", "b", "c", "isthmus-system"}
	worldAccounts   = []string{"x", "y", "z"}
	worldPeers      = []string{"bank", "shop"}
	worldGateways   = []*snapshot.GatewayInfo{
		{ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.9.0.1")},
		{ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.9.0.2")},
	}
	worldRoots []string // of the peers, made once
	worldTime  = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
)

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 7)),
		mesh: &v1alpha1.Mesh{
			ObjectMeta: metav1.ObjectMeta{Name: "m"},
			Spec:       v1alpha1.MeshSpec{TrustDomain: "m.example"},
		},
		sv: map[string]*corev1.Service{}, ap: map[string]*security.AuthorizationPolicy{},
		pa: map[string]*security.PeerAuthentication{},
		se: map[string]*networking.ServiceEntry{}, sc: map[string]*networking.Sidecar{},
		we: map[string]*networking.WorkloadEntry{},
		wl: map[string]snapshot.Workload{}, vips: map[string]netip.Addr{}, origins: map[snapshot.Key]snapshot.Origin{},
		imports: map[string]*v1alpha1.FederatedImport{}, exports: map[string]*v1alpha1.FederatedExport{},
		peers: map[string]snapshot.PeerState{}, meshes: map[string]*v1alpha1.MeshPeer{},
		around: snapshot.Snapshot{Time: worldTime, Roots: []byte("roots")},
	}
	if worldRoots == nil {
		for range worldPeers {
			worldRoots = append(worldRoots, newRoot(t, worldTime))
		}
	}
	for n, name := range worldPeers {
		p := &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Spec.TrustDomain, p.Spec.KnownAs, p.Spec.GatewayAddresses = name+".example", "m", []string{"192.0.2.1:15443"}
		if n > 0 {
			p.Spec.GatewayAddresses = []string{"gateway." + name + ".example:15443"}
		}
		p.Spec.GatewayIDs = []string{"spiffe://" + name + ".example/ns/isthmus-system/sa/gateway"}
		p.Spec.Bundle.Inline = worldRoots[n]
		w.meshes[name] = p
		w.peers[name] = snapshot.PeerState{BundleTime: worldTime}
	}
	for _, ns := range worldNamespaces[:3] {
		for _, sa := range worldAccounts {
			w.wl[ns+sa] = w.workload(ns, sa)
			w.service(ns, sa)
			w.policy(ns, sa)
		}
		w.changeMesh(20, ns, "x")
		w.changeMesh(21, ns, "y")
	}
	w.gateways = 1
	return w
}

func (w *world) pick(list []string) string { return list[w.rand.IntN(len(list))] }

func (w *world) meta(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name}
}

func (w *world) address() string {
	return fmt.Sprintf("10.0.%d.%d", w.rand.IntN(4), 1+w.rand.IntN(200))
}

// addresses are in one IP version or in both.
func (w *world) addresses() []netip.Addr {
	four, six := netip.MustParseAddr(w.address()), netip.MustParseAddr(fmt.Sprintf("fd00::%x", 1+w.rand.IntN(200)))
	return [][]netip.Addr{{four}, {six}, {four, six}, {six, four}}[w.rand.IntN(4)]
}

func (w *world) workload(ns, sa string) snapshot.Workload {
	return snapshot.Workload{
		Name: sa, Namespace: ns, ServiceAccount: sa, Node: "n" + ns, Labels: map[string]string{"app": sa},
		Addresses: w.addresses(), Ports: []snapshot.WorkloadPort{{Number: 8080}}, Ready: w.rand.IntN(3) > 0,
	}
}

func (w *world) service(ns, name string) {
	protocol := w.pick([]string{"http", "tcp"})
	var own []string
	if w.rand.IntN(4) == 0 {
		own = []string{w.pick([]string{"fd00:7::1", "fd00:7::2", "10.7.0.1"})}
	}
	w.sv[ns+name] = &corev1.Service{ObjectMeta: w.meta(ns, name), Spec: corev1.ServiceSpec{
		ClusterIPs: own, Selector: map[string]string{"app": w.pick(worldAccounts)},
		Ports: []corev1.ServicePort{{
			Name: protocol, Port: int32(80 + w.rand.IntN(2)),
			TargetPort: intstr.FromInt32(8080),
		}},
	}}
	w.allocate(name + "." + ns + ".svc.cluster.local")
}

// allocate gives a host an address of its own, as the store does.
func (w *world) allocate(host string) {
	if _, ok := w.vips[host]; !ok {
		w.vips[host] = netip.AddrFrom4([4]byte{240, 240, 1, byte(len(w.vips))})
	}
}

func (w *world) policy(ns, name string) {
	domain := w.pick([]string{"m.example", "m.example", "old.example"}) // the last is the mesh's own now and then
	from := &istiosec.Source{Principals: []string{domain + "/ns/" + w.pick(worldNamespaces) + "/sa/" +
		w.pick(worldAccounts)}}
	switch w.rand.IntN(4) {
	case 0:
		from = &istiosec.Source{Namespaces: []string{w.pick(worldNamespaces)}}
	case 1:
		from = w.source()
	}
	p := &security.AuthorizationPolicy{ObjectMeta: w.meta(ns, name)}
	p.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": w.pick(worldAccounts)}}
	if w.rand.IntN(3) == 0 { // some of the servers of a service
		p.Spec.Selector.MatchLabels["version"] = "2"
	}
	p.Spec.Rules = []*istiosec.Rule{{From: []*istiosec.Rule_From{{Source: from}}}}
	if w.rand.IntN(4) == 0 {
		p.Spec.Action = istiosec.AuthorizationPolicy_DENY
	}
	w.ap[ns+name] = p
}

// source does not name its callers one by one, or excludes some.
func (w *world) source() *istiosec.Source {
	one := w.pick(worldAccounts)
	switch w.rand.IntN(7) {
	case 0:
		return &istiosec.Source{Principals: []string{"m.example/ns/a/*"}}
	case 1:
		return &istiosec.Source{Principals: []string{"*/sa/" + one}}
	case 2:
		return &istiosec.Source{NotPrincipals: []string{"m.example/ns/a/sa/" + one}}
	case 3:
		return &istiosec.Source{
			Principals:    []string{"m.example/ns/a/sa/" + one, "m.example/ns/b/sa/" + one, "old.example/ns/b/sa/x"},
			NotNamespaces: []string{w.pick(worldNamespaces)},
		}
	case 4:
		return &istiosec.Source{ServiceAccounts: []string{w.pick(worldNamespaces) + "/" + one}}
	case 5:
		return &istiosec.Source{NotServiceAccounts: []string{"a/" + one}, Namespaces: []string{"a", "c"}}
	}
	return &istiosec.Source{Principals: []string{"*"}}
}

func (w *world) sidecar(ns, name string) {
	s := &networking.Sidecar{ObjectMeta: w.meta(ns, name)}
	l := &istionet.IstioEgressListener{}
	for range 1 + w.rand.IntN(4) {
		l.Hosts = append(l.Hosts, w.pick(slices.Sorted(maps.Keys(worldSidecarHosts))))
	}
	s.Spec.Egress = []*istionet.IstioEgressListener{l}
	w.sc[ns+name] = s
}

// addressOf is often the address of the workload of that name, where one is registered.
func (w *world) addressOf(key string) string {
	if wl, ok := w.wl[key]; ok && w.rand.IntN(4) > 0 {
		return wl.Addresses[0].String()
	}
	return w.address()
}

// change changes one thing and says what.
func (w *world) change() string {
	ns, name := w.pick(worldNamespaces), w.pick(worldAccounts)
	key := ns + name
	switch what := w.rand.IntN(34); what {
	case 28, 29, 30:
		return w.changeAround()
	case 31:
		if _, ok := w.ap["isthmus-system"+name]; ok {
			delete(w.ap, "isthmus-system"+name)
			return "no policy of all namespaces"
		}
		w.policy("isthmus-system", name)
		return "a policy of all namespaces"
	case 32: // another control plane says who was first
		for k, o := range w.origins {
			if k.Namespace == ns && k.Name == name {
				o.FirstSeen = time.Unix(int64(100+w.rand.IntN(100)), 0)
				w.origins[k] = o
			}
		}
		return "the ages of " + key
	case 33:
		if p := w.ap[key]; p != nil {
			p = p.DeepCopy()
			p.Spec.Rules[0].When = []*istiosec.Condition{{
				Key: "source.namespace", Values: []string{w.pick(worldNamespaces)},
			}}
			w.ap[key] = p
		}
		return "a condition of " + key
	case 26:
		w.sidecar(ns, name)
		return "sidecar " + key
	case 27:
		delete(w.sc, key)
		return "no sidecar " + key
	case 16, 17, 18, 19, 20, 21, 22, 23, 24:
		return w.changeMesh(what, ns, name)
	case 12:
		w.line += 1 + w.rand.IntN(3)
		return "all objects of a file moved down"
	case 13:
		w.closed = nil
		if w.rand.IntN(2) == 0 {
			w.closed = []snapshot.Closed{{
				Key: snapshot.Key{
					Kind: w.pick([]string{
						"AuthorizationPolicy", "PeerAuthentication", "Service", "WorkloadEntry",
						"",
					}),
					Namespace: ns, Name: w.pick(worldAccounts),
				},
				Origin: snapshot.Origin{File: "closed.yaml", Line: 1 + w.rand.IntN(2)}, Reason: "it cannot be read",
			}}
			if w.rand.IntN(2) == 0 {
				w.closed[0].Selector = map[string]string{"app": name}
			}
			if w.closed[0].Key.Kind == "" && w.rand.IntN(2) == 0 {
				w.closed[0].Key.Namespace = "" // nobody knows where it would have held
			}
		}
		return "closed in " + ns
	case 14: // a second object for the scope of another, older or newer
		p := &security.PeerAuthentication{ObjectMeta: w.meta(ns, "second")}
		p.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": w.pick(worldAccounts)}}
		mode := istiosec.PeerAuthentication_MutualTLS_Mode(w.rand.IntN(4))
		p.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{Mode: mode}
		w.pa[key] = p
		return "second peer authentication " + key
	case 0, 1:
		w.policy(ns, name)
		return "policy " + key
	case 2:
		delete(w.ap, key)
		return "no policy " + key
	case 3:
		w.service(ns, name)
		return "service " + key
	case 4:
		delete(w.sv, key)
		return "no service " + key
	case 5, 6, 7:
		e := &networking.WorkloadEntry{ObjectMeta: w.meta(ns, name)}
		if old := w.we[key]; old != nil && what > 5 { // it only moves
			e.Spec.Address, e.Spec.Labels, e.Spec.ServiceAccount = w.addressOf(key), old.Spec.Labels,
				old.Spec.ServiceAccount
			w.we[key] = e
			return "moved entry " + key
		}
		e.Spec.Address, e.Spec.Labels, e.Spec.ServiceAccount = w.addressOf(key), map[string]string{
			"app": w.pick(worldAccounts),
		}, w.pick(worldAccounts)
		if w.rand.IntN(2) == 0 {
			e.Spec.Labels["version"] = "2"
		}
		if wl, ok := w.wl[key]; ok && w.rand.IntN(4) > 0 { // what its node says
			e.Spec.ServiceAccount = wl.ServiceAccount
		}
		w.we[key] = e
		return "entry " + key
	case 8:
		delete(w.we, key)
		return "no entry " + key
	case 9:
		p := &security.PeerAuthentication{ObjectMeta: w.meta(ns, name)}
		mode := istiosec.PeerAuthentication_MutualTLS_Mode(w.rand.IntN(4))
		p.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{Mode: mode}
		w.pa[key] = p
		return "peer authentication " + key
	case 10:
		e := &networking.ServiceEntry{ObjectMeta: w.meta(ns, name)}
		e.Spec = istionet.ServiceEntry{
			Hosts:    []string{w.pick([]string{"one.example.com", "two.com", "x.a.svc.cluster.local", "x.b.svc"})},
			Location: istionet.ServiceEntry_MESH_EXTERNAL, Resolution: istionet.ServiceEntry_STATIC,
			Ports:     []*istionet.ServicePort{{Number: 443, Name: "tls", Protocol: "TLS"}},
			Endpoints: []*istionet.WorkloadEntry{{Address: w.address()}},
		}
		switch w.rand.IntN(5) {
		case 0:
			e.Spec.Resolution, e.Spec.Endpoints[0].Address = istionet.ServiceEntry_DNS,
				w.pick([]string{"u.example.org", "v.example.org"})
		case 1:
			e.Spec.ExportTo = []string{w.pick([]string{".", "a", "b"})}
		case 2, 3:
			e.Spec.Addresses = []string{w.pick([]string{"10.7.0.1", "10.7.0.0/24", "nowhere"})}
		}
		w.se[key] = e
		w.allocate(e.Spec.Hosts[0])
		return "service entry " + key
	}
	if wl, ok := w.wl[key]; ok {
		wl.Ready = !wl.Ready
		w.wl[key] = wl
	}
	return "readiness of " + key
}

// changeMesh changes what is felt in all namespaces.
func (w *world) changeMesh(what int, ns, name string) string {
	key := ns + name
	switch what {
	case 16:
		m := *w.mesh
		m.Spec.TrustDomainAliases = [][]string{nil, {"old.example"}}[w.rand.IntN(2)]
		m.Spec.DefaultAction = []v1alpha1.DefaultAction{v1alpha1.DefaultDeny, v1alpha1.DefaultAllow}[w.rand.IntN(2)]
		w.mesh = &m
		return "the mesh"
	case 17, 18:
		if _, ok := w.wl[key]; ok {
			delete(w.wl, key)
			return "no workload " + key
		}
		wl := w.workload(ns, name)
		wl.Sidecar = w.rand.IntN(3) == 0
		w.wl[key] = wl
		return "workload " + key
	case 19:
		w.silent = nil
		if w.rand.IntN(2) == 0 {
			w.silent = []snapshot.SilentNode{{Name: "n" + ns}}
		}
		return "silent nodes"
	case 20:
		if w.imports[key] != nil {
			delete(w.imports, key)
			return "no import " + key
		}
		i := &v1alpha1.FederatedImport{ObjectMeta: w.meta(ns, name), Spec: v1alpha1.FederatedImportSpec{
			Port: int32(80 + w.rand.IntN(2)), Callers: []string{w.pick(worldAccounts)},
			From: []v1alpha1.ImportFrom{{Peer: w.pick(worldPeers)}},
		}}
		if w.rand.IntN(2) == 0 {
			i.Spec.Local = &v1alpha1.ImportLocal{Priority: int32(w.rand.IntN(2))}
		}
		w.imports[key] = i
		w.allocate(name + "." + ns + ".svc.cluster.local")
		return "import " + key
	case 21:
		w.exports[key] = &v1alpha1.FederatedExport{ObjectMeta: w.meta(ns, name), Spec: v1alpha1.FederatedExportSpec{
			Service: w.pick(worldAccounts), Port: 80,
			To: []v1alpha1.ExportTo{{Peer: w.pick(worldPeers), Rules: []v1alpha1.ExportRule{{}}}},
		}}
		return "export " + key
	case 22:
		peer := w.pick(worldPeers)
		state := w.peers[peer]
		state.Suspended, state.BundleTime = w.rand.IntN(3) == 0, worldTime
		if w.rand.IntN(4) == 0 {
			state.BundleTime = worldTime.Add(-48 * time.Hour)
		}
		state.Readiness = nil
		if w.rand.IntN(2) == 0 {
			state.Readiness = &snapshot.Readiness{Unready: []snapshot.OfferedName{{Namespace: ns, Name: name}}}
		}
		w.peers[peer] = state
		return "peer " + peer
	case 23:
		w.gateways = w.rand.IntN(3)
		return "gateways"
	}
	w.written = nil
	if w.rand.IntN(2) == 0 {
		w.written = map[string]*corev1.Namespace{"": {ObjectMeta: metav1.ObjectMeta{Name: w.pick([]string{
			"com",
			"empty",
		})}}}
	}
	return "namespaces"
}

// changeAround changes what is not configured and that no workload's agent says.
func (w *world) changeAround() string {
	some := w.rand.IntN(2) == 0
	switch w.rand.IntN(8) {
	case 0:
		w.around.Invites = nil
		if some {
			w.around.Invites = []snapshot.Invite{{ID: "i", Peer: w.pick(worldPeers)}}
		}
		return "invitations"
	case 1:
		w.around.Bootstraps = nil
		if some {
			w.around.Bootstraps = []snapshot.Bootstrap{{ID: "b", Address: "192.0.2.9:15443"}}
		}
		return "acceptances"
	case 2:
		w.around.PeeringAddresses = nil
		if some {
			w.around.PeeringAddresses = []netip.AddrPort{netip.MustParseAddrPort("10.9.1.1:15012")}
		}
		return "where the control plane is"
	case 3:
		w.around.PeeringPort = uint16(w.rand.IntN(2)) * 15012
		return "the port of the control plane"
	case 4:
		w.around.SilentGateways = nil
		if some {
			w.around.SilentGateways = []string{"z0"}
		}
		return "silent gateways"
	case 5:
		w.around.Roots = []byte(w.pick([]string{"roots", "other roots"}))
		return "roots"
	case 6:
		w.around.Time = worldTime.Add(time.Duration(w.rand.IntN(3)) * 30 * time.Hour)
		return "the time"
	}
	w.reached, w.builtin = netip.Addr{}, w.pick([]string{"1", "2"})
	if some {
		w.reached = netip.MustParseAddr("10.9.1.2")
	}
	return "agents"
}

// origin says where an object is written: a file a namespace. Half of them came one after the other, the other half
// together.
func (w *world) origin(k snapshot.Key) snapshot.Origin {
	o, ok := w.origins[k]
	if !ok {
		o = snapshot.Origin{File: k.Namespace + ".yaml", Line: 10 * (1 + len(w.origins)), FirstSeen: time.Unix(1, 0)}
		if w.rand.IntN(2) == 0 {
			o.FirstSeen = time.Unix(int64(100+w.rand.IntN(100)), 0)
		}
		w.origins[k] = o
	}
	if k.Namespace == "a" {
		o.Line += w.line
	}
	return o
}

// config is the next version of the configuration, which shares with the last one what did not change.
func (w *world) config() *snapshot.Config {
	var change snapshot.Change
	for o := range w.objects.All() {
		change.Remove(o.Key)
	}
	put(w, &change, map[string]*v1alpha1.Mesh{"": w.mesh})
	put(w, &change, w.sv)
	put(w, &change, w.ap)
	put(w, &change, w.pa)
	put(w, &change, w.se)
	put(w, &change, w.sc)
	put(w, &change, w.we)
	put(w, &change, w.imports)
	put(w, &change, w.exports)
	put(w, &change, w.meshes)
	put(w, &change, w.written)
	w.objects = w.objects.With(change)
	return &snapshot.Config{Objects: w.objects, Closed: w.closed}
}

func put[T metav1.Object](w *world, change *snapshot.Change, objects map[string]T) {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		change.Put(snapshot.NewObject(objects[name], w.origin(snapshot.KeyOf(objects[name]))))
	}
}

// snapshot shares with the last one what did not change, as those of the store do.
func (w *world) snapshot() *snapshot.Snapshot {
	reg := &snapshot.Registry{}
	for _, ns := range worldNamespaces {
		reg.Nodes = append(reg.Nodes, snapshot.Node{Name: "n" + ns, Role: snapshot.RoleNode, Builtin: w.builtin})
	}
	for n := range w.gateways {
		reg.Nodes = append(reg.Nodes, snapshot.Node{
			Name: fmt.Sprint("z", n), Role: snapshot.RoleGateway, Gateway: worldGateways[n], Reached: w.reached,
			Builtin: w.builtin,
		})
	}
	for _, k := range slices.Sorted(maps.Keys(w.wl)) {
		reg.Workloads = append(reg.Workloads, w.wl[k])
	}
	snap := w.around
	snap.VIPs, snap.Registry, snap.Config = maps.Clone(w.vips), reg, w.config()
	snap.Peers, snap.SilentNodes = maps.Clone(w.peers), w.silent
	if w.last != nil && reflect.DeepEqual(w.last.Registry, reg) {
		snap.Registry = w.last.Registry
	}
	if w.last != nil && maps.Equal(w.last.VIPs, snap.VIPs) {
		snap.VIPs = w.last.VIPs
	}
	w.last = &snap
	return &snap
}
