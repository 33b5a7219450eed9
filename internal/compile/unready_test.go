package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

// A port is named when it has endpoints and none of them is ready.
func TestUnready(t *testing.T) {
	svc := &model.Service{
		ID: model.ServiceID{Namespace: "default", Name: "web"}, Host: "web.default.svc.cluster.local",
		Ports: []*model.Port{{Number: 80}, {Number: 81}, {Number: 82}, {Number: 83}},
	}
	at := func(port uint16) model.EndpointSet { return model.EndpointSet{Host: svc.Host, Port: port} }
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	endpoints := map[model.EndpointSet][]model.Endpoint{
		at(80): {{Addr: one, Port: 8080, By: model.WorkloadID{Namespace: "default", Name: "web-1"}}},
		at(81): {{Addr: one, Port: 8081}, {Addr: two, Port: 8081, Healthy: true}},
	}
	for _, name := range []string{"g", "f", "e", "d", "c", "b", "a", "a"} {
		e := model.Endpoint{Port: 8083, By: model.WorkloadID{Namespace: "default", Name: name}}
		endpoints[at(83)] = append(endpoints[at(83)], e)
	}
	var got []string
	for _, f := range unready(map[model.ServiceID]*model.Service{svc.ID: svc}, endpoints) {
		got = append(got, fmt.Sprintf("%s %s: %s", f.Code, f.Object, f.Message))
	}
	want := []string{
		"ISM0301 Service default/web: none of its 1 endpoints at port 80 is ready (default/web-1), so every call fails",
		"ISM0301 Service default/web: none of its 8 endpoints at port 83 is ready " +
			"(default/a, default/b, default/c, default/d, default/e and 2 more), so every call fails",
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
