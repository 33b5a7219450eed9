package compile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	istionet "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// crowd is a mesh with one old ServiceEntry, and n young ones of so many ports in each of some namespaces.
func crowd(n, ports, namespaces, workloads int) *snapshot.Snapshot {
	origins := map[snapshot.Key]snapshot.Origin{}
	cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: v1alpha1.MeshSpec{TrustDomain: "m.example"}},
	)}
	vips := map[string]netip.Addr{}
	add := func(ns, name string, ports int, seen time.Time) {
		e := &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		e.Spec = istionet.ServiceEntry{
			Hosts: []string{name + "." + ns + ".example.com"}, Location: istionet.ServiceEntry_MESH_EXTERNAL,
			Resolution: istionet.ServiceEntry_STATIC,
			Endpoints:  []*istionet.WorkloadEntry{{Address: "192.0.2.1"}},
		}
		for p := range ports {
			e.Spec.Ports = append(e.Spec.Ports,
				&istionet.ServicePort{Number: uint32(1000 + p), Name: fmt.Sprint("p", p), Protocol: "TCP"})
		}
		cfg = cfg.With(snapshot.PutAll(e))
		origins[snapshot.Key{Kind: "ServiceEntry", Namespace: ns, Name: name}] = snapshot.Origin{
			File: "a.yaml", FirstSeen: seen,
		}
		vips[e.Spec.Hosts[0]] = netip.AddrFrom4([4]byte{240, 240, byte(len(vips) >> 8), byte(len(vips))})
	}
	for ns := range namespaces {
		for i := range n {
			add(fmt.Sprintf("crowd-%d", ns), fmt.Sprintf("e%04d", i), ports, time.Unix(200+int64(i), 0))
		}
	}
	add("shop", "old", 1, time.Unix(100, 0))
	cfg.Objects = cfg.Objects.WithOrigins(origins)
	reg := &snapshot.Registry{Nodes: []snapshot.Node{{Name: "n", Role: snapshot.RoleNode}}}
	for i := range workloads {
		reg.Workloads = append(reg.Workloads,
			snapshot.Workload{Name: fmt.Sprint("w", i), Namespace: "shop", ServiceAccount: "web", Node: "n"})
	}
	return &snapshot.Snapshot{Config: cfg, Registry: reg, VIPs: vips}
}

func codes(c *Compiled) (out []string) {
	for _, f := range c.Findings {
		out = append(out, string(f.Code)+" "+f.Object.String())
	}
	return out
}

// TestRoom: very many destinations cost no Envoy more than it can bear, and the oldest stand.
func TestRoom(t *testing.T) {
	for name, test := range map[string]struct {
		snap   *snapshot.Snapshot
		served int
		each   int // destinations of each workload
		want   []string
	}{
		"few": {crowd(10, 10, 1, 2), 11, 101, nil},
		"a namespace": {crowd(70, 128, 1, 1), 65, 2048, []string{
			"ISM0208 Namespace crowd-0", "ISM0209 ServiceEntry crowd-0/e0064",
		}},
		"a workload": {
			crowd(100, 20, 2, 1), 201, 2048,
			[]string{"ISM0208 Namespace crowd-0", "ISM0208 Namespace crowd-1"},
		},
		"a proxy": {crowd(100, 20, 1, 20), 101, 1621, []string{"ISM0208 Namespace crowd-0"}},
	} {
		t.Run(name, func(t *testing.T) {
			first := Next(nil, test.snap)
			mesh := first.Mesh
			if n := len(mesh.Services); n != test.served {
				t.Errorf("%d services, want %d", n, test.served)
			}
			for id, w := range mesh.Workloads {
				if len(w.Outbound) != test.each {
					t.Errorf("%s may call %d destinations, want %d", id, len(w.Outbound), test.each)
				}
				if !slices.ContainsFunc(w.Outbound,
					func(o model.Outbound) bool { return o.Service.Host == "old.shop.example.com" }) {
					t.Errorf("%s may not call the oldest", id)
				}
			}
			slices.Sort(test.want)
			got := codes(first)
			if slices.Sort(got); !slices.Equal(got, test.want) {
				t.Errorf("found %v, want %v", got, test.want)
			}
		})
	}
}

// TestRoomOfTheMesh: what namespaces serve together has a bound too.
func TestRoomOfTheMesh(t *testing.T) {
	c := Next(nil, crowd(64, 128, 17, 1))
	if n := len(c.Mesh.Services); n != 1024 {
		t.Errorf("%d services, want 1024", n)
	}
	if got := codes(c); !slices.Contains(got, "ISM0215 ServiceEntry crowd-11/e0060") || len(got) != 18 {
		t.Errorf("found %v", got)
	}
}

// TestNextSeesTheCrowd: the short way notices that there is no more room.
func TestNextSeesTheCrowd(t *testing.T) {
	snap := crowd(100, 20, 2, 1)
	fewer := *snap
	var gone snapshot.Change
	for _, e := range snapshot.Of[*networking.ServiceEntry](snap.Config.Objects.Namespace("crowd-1")) {
		gone.Remove(snapshot.KeyOf(e))
	}
	fewer.Config = snap.Config.With(gone)
	before := Next(nil, &fewer)
	after := Next(before, snap)
	again := Next(after, &fewer)
	if !reflect.DeepEqual(before.Mesh, again.Mesh) {
		t.Error("what was left out for want of room is left out when there is room")
	}
	if len(before.Findings) != 0 || len(after.Findings) != 2 || len(again.Findings) != 0 {
		t.Errorf("found %v, then %v, then %v", codes(before), codes(after), codes(again))
	}
}
