package compile

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What a peer says of readiness changes one endpoint set and nothing else of the mesh, and the short way leads where
// the long one does. Names that the import does not use change nothing.
func TestReadinessIsAnEndpointMatter(t *testing.T) {
	noon := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	peer := func(name, address string) *v1alpha1.MeshPeer {
		return &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MeshPeerSpec{
			TrustDomain: name + ".example", KnownAs: "cards", GatewayAddresses: []string{address},
			GatewayIDs: []string{"spiffe://" + name + ".example/ns/isthmus-system/sa/gateway"},
			Bundle:     v1alpha1.PeerBundle{Inline: newRoot(t, noon)},
		}}
	}
	world := func(r *snapshot.Readiness) *snapshot.Snapshot {
		return &snapshot.Snapshot{
			Time: noon, Roots: []byte("roots"), Registry: &snapshot.Registry{},
			Peers: map[string]snapshot.PeerState{
				"first":  {BundleTime: noon, Readiness: r},
				"second": {BundleTime: noon},
			},
		}
	}
	cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
		&v1alpha1.Mesh{
			ObjectMeta: metav1.ObjectMeta{Name: "cards"},
			Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
		},
		peer("first", "192.0.2.1:15443"),
		peer("second", "192.0.2.2:15443"),
		&v1alpha1.FederatedImport{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bank"},
			Spec: v1alpha1.FederatedImportSpec{
				Port: 80, Callers: []string{"till"},
				From: []v1alpha1.ImportFrom{
					{Peer: "first", Name: "money", Namespace: "shop"},
					{Peer: "second", Priority: 1},
				},
			},
		},
	)}
	at := func(r *snapshot.Readiness) *snapshot.Snapshot {
		s := world(r)
		s.Config = cfg
		return s
	}
	set := model.EndpointSet{Host: "import/bank.default.svc.cluster.local", Port: 80}
	healthy := func(c *Compiled) (out [2]bool) {
		eps := c.Mesh.Endpoints[set]
		if len(eps) != 2 || eps[0].Group.Name != "first" || eps[1].Group.Name != "second" ||
			eps[1].Group.Priority != 1 {
			t.Fatalf("endpoints %+v, findings %v", eps, c.Findings)
		}
		return [2]bool{eps[0].Healthy, eps[1].Healthy}
	}
	before := Next(nil, at(nil))
	if got := healthy(before); got != [2]bool{true, true} {
		t.Errorf("nothing heard: %v", got)
	}
	for _, tt := range []struct {
		unready snapshot.OfferedName
		want    [2]bool
	}{
		{snapshot.OfferedName{Namespace: "shop", Name: "money"}, [2]bool{false, true}},
		{snapshot.OfferedName{Namespace: "default", Name: "money"}, [2]bool{true, true}},
		{snapshot.OfferedName{Namespace: "default", Name: "bank"}, [2]bool{true, true}},
	} {
		snap := at(&snapshot.Readiness{Sequence: 1, Unready: []snapshot.OfferedName{tt.unready}})
		next := Next(before, snap)
		if got := healthy(next); got != tt.want || !next.OnlyEndpoints {
			t.Errorf("%v: healthy %v, want %v; only endpoints: %v", tt.unready, got, tt.want, next.OnlyEndpoints)
		}
		if mesh, _ := Mesh(snap); !reflect.DeepEqual(mesh, next.Mesh) {
			t.Errorf("%v: %s", tt.unready, difference(reflect.ValueOf(mesh), reflect.ValueOf(next.Mesh), "mesh"))
		}
		if got := healthy(Next(next, at(nil))); got != [2]bool{true, true} {
			t.Errorf("%v is ready again: %v", tt.unready, got)
		}
	}
}
