package spine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestEndpointFindings(t *testing.T) {
	own := &model.Workload{ID: model.WorkloadID{Namespace: "default", Name: "own-1"}, Node: "n1"}
	w := &model.Workload{ID: model.WorkloadID{Namespace: "default", Name: "web-1"}, Node: "n1"}
	svc := &model.Service{ID: model.ServiceID{Namespace: "default", Name: "web"}, Host: "web.default.svc.cluster.local", Ports: []*model.Port{{Number: 80}, {Number: 81}, {Number: 82}, {Number: 83}}}
	at := func(port uint16) model.EndpointSet { return model.EndpointSet{Host: svc.Host, Port: port} }
	mesh := &model.Mesh{
		Services: map[model.ServiceID]*model.Service{svc.ID: svc},
		Proxies:  map[string]*model.Proxy{"n1": {Name: "n1", Workloads: []*model.Workload{w}, Sidecars: []*model.Workload{own}}},
		Endpoints: map[model.EndpointSet][]model.Endpoint{
			at(80): {{Addr: netip.MustParseAddr("10.0.0.1"), Port: 8080, By: w.ID}},
			at(81): {{Addr: netip.MustParseAddr("10.0.0.1"), Port: 8081, By: w.ID}, {Addr: netip.MustParseAddr("10.0.0.2"), Port: 8081, Healthy: true}},
		},
	}
	for _, name := range []string{"g", "f", "e", "d", "c", "b", "a", "a"} {
		e := model.Endpoint{Port: 8083, By: model.WorkloadID{Namespace: "default", Name: name}}
		mesh.Endpoints[at(83)] = append(mesh.Endpoints[at(83)], e)
	}
	snap := &snapshot.Snapshot{SilentNodes: []snapshot.SilentNode{{Name: "n1", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, {Name: "without workloads"}}}
	var got []string
	for _, f := range endpointFindings(snap, mesh) {
		got = append(got, fmt.Sprintf("%s %s: %s", f.Code, f.Object, f.Message))
	}
	want := []string{
		"ISM0301 Service default/web: none of its 1 endpoints at port 80 is ready (default/web-1), so every call fails",
		"ISM0301 Service default/web: none of its 8 endpoints at port 83 is ready " +
			"(default/a, default/b, default/c, default/d, default/e and 2 more), so every call fails",
		"ISM0300 node n1: silent since 2026-01-02T03:04:05Z: what it serves (default/own-1, default/web-1) is out of use wherever another endpoint is ready",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
