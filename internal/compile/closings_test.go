package compile

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestManyClosed: what is closed ten thousand times costs each workload no more than what is closed once for the same
// reason, and findings have a bound.
func TestManyClosed(t *testing.T) {
	cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: v1alpha1.MeshSpec{TrustDomain: "m.example"}},
	)}
	for n := range 10_000 {
		cfg.Closed = append(cfg.Closed, snapshot.Closed{
			Key:      snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "shop", Name: fmt.Sprint("p", n)},
			Selector: map[string]string{"app": fmt.Sprint(n % 2)},
		})
	}
	reg := &snapshot.Registry{Workloads: []snapshot.Workload{{
		Name: "web", Namespace: "shop", ServiceAccount: "web", Node: "n", Labels: map[string]string{"app": "1"},
		Ports: []snapshot.WorkloadPort{{Number: 80}},
	}}}
	mesh, findings := Mesh(&snapshot.Snapshot{Config: cfg, Registry: reg})
	web := mesh.Workloads[model.WorkloadID{Namespace: "shop", Name: "web"}]
	if n := len(web.Inbound[0].Policies.Deny); n != 1 || web.Inbound[0].Mode != model.Strict {
		t.Errorf("%d refusals, mode %s; want one, STRICT", n, web.Inbound[0].Mode)
	}
	if last := findings[0]; len(findings) != 1_001 || last.Code != "ISM0207" ||
		last.Message != "9000 more objects are not in force" {
		t.Errorf("%d findings, the first is %s", len(findings), last)
	}
}

// TestClosedEntry: a workload whose entry is closed is closed alone: not its neighbour with the same labels, nor one of
// its name elsewhere.
func TestClosedEntry(t *testing.T) {
	cfg := &snapshot.Config{
		Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: v1alpha1.MeshSpec{TrustDomain: "m.example"}},
		),
		Closed: []snapshot.Closed{
			{Key: snapshot.Key{Kind: "WorkloadEntry", Namespace: "isthmus-system", Name: "web"}},
			{
				Key: snapshot.Key{Kind: "WorkloadEntry", Namespace: "shop", Name: "web"},
			},
		},
	}
	ids := []model.WorkloadID{
		{Namespace: "shop", Name: "web"}, {Namespace: "shop", Name: "web-2"}, {Namespace: "pub", Name: "web"},
	}
	reg := &snapshot.Registry{}
	for _, id := range ids {
		reg.Workloads = append(reg.Workloads, snapshot.Workload{
			Name: id.Name, Namespace: id.Namespace, ServiceAccount: "web", Node: "n",
			Labels: map[string]string{"app": "web"}, Ports: []snapshot.WorkloadPort{{Number: 80}},
		})
	}
	mesh, _ := Mesh(&snapshot.Snapshot{Config: cfg, Registry: reg})
	for n, id := range ids {
		if refusals := len(mesh.Workloads[id].Inbound[0].Policies.Deny); (refusals == 1) != (n == 0) {
			t.Errorf("%s has %d refusals", id, refusals)
		}
	}
}
