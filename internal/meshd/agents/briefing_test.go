package agents

import (
	"testing"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
)

// Who may need to hear something new, and nobody else.
func TestBriefingChanged(t *testing.T) {
	t.Parallel()
	shop, cart := &model.Workload{}, &model.Workload{}
	node := func(ws ...*model.Workload) *model.Proxy { return &model.Proxy{Workloads: ws} }
	mesh := func(domain string, namespaces []string, ps map[string]*model.Proxy) *model.Mesh {
		return &model.Mesh{Domain: domain, Namespaces: namespaces, Proxies: ps}
	}
	same := node(shop)
	old := newBriefing(nil, mesh("cluster.local", []string{"a"}, map[string]*model.Proxy{
		"same": same, "changed": node(shop), "gone": node(shop), "alone": node(),
	}))
	now := map[string]*model.Proxy{
		"same": same, "changed": node(cart), "came": node(shop), "gateway": {Gateway: &model.Gateway{}},
		"alone": {Sidecars: []*model.Workload{shop}},
	}
	next := newBriefing(old, mesh("cluster.local", []string{"a"}, now))
	for name, want := range map[string]bool{"same": false, "changed": true, "gone": true, "came": true, "gateway": true, "alone": true} {
		if got := next.changed(old, name); got != want {
			t.Errorf("%s: changed is %v", name, got)
		}
	}
	for what, other := range map[string]*model.Mesh{
		"domain": mesh("else.where", []string{"a"}, now), "namespaces": mesh("cluster.local", []string{"a", "b"}, now),
	} {
		if !newBriefing(old, other).changed(old, "same") {
			t.Errorf("another %s is no change", what)
		}
	}
	if !next.changed(nil, "same") {
		t.Error("the first is no change")
	}
}

func TestPlaintextAt(t *testing.T) {
	ports := []model.Inbound{{Port: 80, Mode: model.Strict}, {Port: 81, Mode: model.Permissive}, {Port: 82, Mode: model.Disable}}
	strict := plaintextAt(&model.Workload{Inbound: ports})
	lenient := plaintextAt(&model.Workload{Mode: model.Permissive, Inbound: ports})
	for port, want := range map[uint16]struct{ strict, lenient bool }{
		80: {false, false}, 81: {true, true}, 82: {true, true}, 40000: {false, true},
	} {
		if strict.At(port) != want.strict || lenient.At(port) != want.lenient {
			t.Errorf("port %d: plaintext %v where the workload is strict, %v where it is not", port, strict.At(port), lenient.At(port))
		}
	}
	if (agentapi.Plaintext{}).At(80) {
		t.Error("the zero value takes plaintext")
	}
}
