package envoy

import (
	"fmt"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// TestManyCallers: thousands of callers that are allowed beside thousands that are denied cost milliseconds for a port.
func TestManyCallers(t *testing.T) {
	allow, deny := &model.Policy{Action: model.Allow}, &model.Policy{Action: model.Deny}
	for n := range 4_000 {
		id := func(ns string, kind model.MatchKind) []model.Source {
			return []model.Source{{Principals: []model.Principal{
				{Match: model.Match{Kind: kind, Value: fmt.Sprintf("spiffe://m.example/ns/%s%d/sa/x", ns, n)}},
			}}}
		}
		allow.Rules = append(allow.Rules, model.Rule{From: id("a", model.Exact)})
		deny.Rules = append(deny.Rules, model.Rule{From: id("b", model.Exact)}, model.Rule{From: id("c", model.Prefix)})
	}
	deny.Rules = append(deny.Rules, model.Rule{From: []model.Source{
		// 1111 of them
		{Principals: []model.Principal{{Match: model.Match{Kind: model.Prefix, Value: "spiffe://m.example/ns/a1"}}}},
		{
			Principals: []model.Principal{
				{Match: model.Match{Kind: model.Exact, Value: "spiffe://m.example/ns/a2/sa/x"}},
			},
		},
	}})
	policies := model.Policies{Allow: []*model.Policy{allow}, Deny: []*model.Policy{deny}}
	server, began := authz.Server{TrustDomain: "m.example"}, time.Now()
	for range 20 {
		if a := admitted(server, server.Read(policies)); !a.whole || len(a.named) != 4_000-1_111-1 {
			t.Fatalf("%d callers are admitted, by the handshake alone: %v", len(a.named), a.whole)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("20 ports took %s", took)
	}
}
