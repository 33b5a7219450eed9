package meshd

import (
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

// Who may need to hear something new, and nobody else.
func TestBriefingChanged(t *testing.T) {
	t.Parallel()
	shop, cart := &model.Workload{}, &model.Workload{}
	node := func(ws ...*model.Workload) *model.Proxy { return &model.Proxy{Workloads: ws} }
	mesh := func(domain string, namespaces []string, ps map[string]*model.Proxy) *briefing {
		return newBriefing(&model.Mesh{Domain: domain, Namespaces: namespaces, Proxies: ps})
	}
	old := mesh("cluster.local", []string{"a"}, map[string]*model.Proxy{"same": node(shop), "changed": node(shop), "gone": node(shop), "alone": node()})
	now := map[string]*model.Proxy{
		"same": node(shop), "changed": node(cart), "came": node(shop), "gateway": {Gateway: &model.Gateway{}},
		"alone": {Sidecars: []*model.Workload{shop}},
	}
	next := mesh("cluster.local", []string{"a"}, now)
	for name, want := range map[string]bool{"same": false, "changed": true, "gone": true, "came": true, "gateway": true, "alone": true} {
		if got := next.changed(old, name); got != want {
			t.Errorf("%s: changed is %v", name, got)
		}
	}
	for what, other := range map[string]*briefing{"domain": mesh("else.where", []string{"a"}, now), "namespaces": mesh("cluster.local", []string{"a", "b"}, now)} {
		if !other.changed(old, "same") {
			t.Errorf("another %s is no change", what)
		}
	}
	if !next.changed(nil, "same") {
		t.Error("the first is no change")
	}
}
