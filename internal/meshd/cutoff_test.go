package meshd

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/waittest"
)

// A control plane that is cut off from the database lets nobody in, signs nothing and takes nothing new in; whom it
// knows it serves as before, and whom it is told to shut out it shuts out at once. What was asked of it, and what
// others wrote, is in force when the database is back.
func TestCutOffFromTheDatabase(t *testing.T) {
	t.Parallel()
	a, b := newReplicas(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	wire := pgtest.NewWire(t, &b.cfg.Postgres)
	a.start()
	b.start()
	hosts := func(names ...string) (r agentapi.Report) {
		for i, name := range names {
			r.Workloads = append(r.Workloads, workload(name, name, "10.0.1."+string(rune('1'+i))))
		}
		return r
	}
	payments := a.agent("node-payments", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	shop := b.agent("node-shop", []string{"default/*"}, hosts("shop").Workloads...)
	elsewhere := b.agent("node-elsewhere", []string{"default/elsewhere"},
		workload("elsewhere", "elsewhere", "10.0.0.3"))
	here := b.agent("node-here", []string{"default/here"}, workload("here", "here", "10.0.0.4"))
	for _, ag := range []*fakeAgent{payments, shop, elsewhere, here} {
		ag.instructed("anything", func(*agentapi.Instructions) bool { return true })
	}
	spare := b.token("node-spare", snapshot.RoleNode, "default/*")
	proxy := ads(t, shop.conn, nil)
	calls := func() bool {
		for name := range proxy.has[envoy.ClusterType] {
			if strings.Contains(name, "payments") {
				return true
			}
		}
		return false
	}
	proxy.until("shop may call payments", calls)
	registered := func(p *plane, name string) bool {
		for _, w := range p.d.store.Snapshot().Registry.Workloads {
			if w.Name == name {
				return true
			}
		}
		return false
	}
	wire.Sever()

	var refused sync.WaitGroup
	refused.Go(func() {
		if _, err := b.join(spare); err == nil {
			t.Error("a node joined")
		}
	})
	refused.Go(func() {
		if _, err := shop.sign("default", "shop"); err == nil {
			t.Error("a certificate was signed")
		}
	})
	refused.Go(func() {
		if _, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](soon(t), b.local(), "CreateToken",
			&adminapi.TokenRequest{Node: "another", Role: snapshot.RoleNode}); status.Code(err) != codes.Unavailable {
			t.Errorf("making a token: %v", err)
		}
	})
	revoked := make(chan error, 1)
	go func() {
		_, err := adminapi.Call[adminapi.NodeRequest, adminapi.RevokedNode](t.Context(), b.local(), "RevokeNode",
			&adminapi.NodeRequest{Node: "node-here"})
		revoked <- err
	}()
	wantCode(t, "the conversation of who is revoked here",
		received(t, "the conversation of who is revoked here", here.end),
		codes.PermissionDenied)
	eventually(t, "its workload is gone here", func() bool { return !registered(b, "here") })
	ask[adminapi.RevokedNode](t, a.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-elsewhere"})

	b.write("shop.yaml", strings.ReplaceAll(shopYAML, "sa/shop", "sa/nobody")+"---\n"+
		strings.ReplaceAll(shopYAML, "payments", "novelty")) // which has an age and an address only when it is kept
	proxy.until("shop may call payments no longer", func() bool { return !calls() })
	shop.report(hosts("shop", "more"))
	eventually(t, "what the node says now waits", func() bool {
		return strings.Contains(b.logs.String(), "what an agent says now cannot be registered")
	})
	refused.Wait()
	if !registered(a, "here") || !registered(b, "elsewhere") || registered(a, "elsewhere") {
		t.Error("something is known that nobody could have told")
	}
	if registered(b, "more") || !registered(b, "shop") || len(b.d.store.Snapshot().SilentNodes) > 0 {
		t.Errorf("what the node said before is not in force, or it is silent: %+v, %v",
			b.d.store.Snapshot().Registry.Workloads, b.d.store.Snapshot().SilentNodes)
	}
	for _, ag := range []*fakeAgent{shop, elsewhere} {
		select {
		case err := <-ag.end:
			t.Errorf("a conversation ended: %v", err)
		default:
		}
	}

	wire.Mend()
	eventually(t, "a new name has its address", func() bool { return len(b.d.store.Snapshot().VIPs) == 2 })
	waittest.Until(t, "all is in force at both", func() bool {
		for _, p := range []*plane{a, b} {
			if registered(p, "here") || registered(p, "elsewhere") || !registered(p, "more") || !registered(p, "shop") {
				return false
			}
		}
		return true
	})
	wantCode(t, "the conversation of who was revoked elsewhere",
		received(t, "the conversation of who was revoked elsewhere", elsewhere.end), codes.PermissionDenied)
	select {
	case err := <-revoked:
		if err != nil && status.Code(err) != codes.Unknown {
			t.Errorf("the revocation: %v", err)
		}
	case <-time.After(waittest.Patience):
		t.Error("who asked for the revocation is not answered")
	}
	if _, err := b.join(spare); err != nil {
		t.Errorf("the token that nobody could use: %v", err)
	}
	if _, err := a.join(spare); err == nil {
		t.Error("it is good twice")
	}
	_, err := shop.sign("default", "shop")
	must(t, err)
}
