package compile

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestSilentNodes(t *testing.T) {
	own := &model.Workload{ID: model.WorkloadID{Namespace: "default", Name: "own-1"}, Node: "n1"}
	w := &model.Workload{ID: model.WorkloadID{Namespace: "default", Name: "web-1"}, Node: "n1"}
	mesh := &model.Mesh{Proxies: map[string]*model.Proxy{
		"n1": {Name: "n1", Workloads: []*model.Workload{w}, Sidecars: []*model.Workload{own}},
	}}
	snap := &snapshot.Snapshot{SilentNodes: []snapshot.SilentNode{
		{Name: "n1", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, {Name: "without workloads"},
	}}
	got := silentNodes(snap, mesh)
	const want = "silent since 2026-01-02T03:04:05Z: what it serves (default/own-1, default/web-1) " +
		"is out of use wherever another endpoint is ready"
	if len(got) != 1 || got[0].Code != "ISM0300" || got[0].Object.String() != "node n1" || got[0].Message != want {
		t.Errorf("got %v, want %q", got, want)
	}
}
