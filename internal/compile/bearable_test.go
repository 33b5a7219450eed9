package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

func namesOf(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("n", i))
	}
	return out
}

// TestBearable: what policies compare with has a bound. The oldest stand, an ALLOW beyond allows nothing, and a DENY
// beyond closes.
func TestBearable(t *testing.T) {
	from := func(n int) *istiosec.Rule {
		return &istiosec.Rule{From: []*istiosec.Rule_From{{Source: &istiosec.Source{Namespaces: namesOf(n)}}}}
	}
	product := &istiosec.Rule{When: []*istiosec.Condition{{Key: "source.namespace", Values: namesOf(200)}}}
	for range 200 {
		product.From = append(product.From, from(1).From...)
	}
	type written struct {
		name   string
		action istiosec.AuthorizationPolicy_Action
		rule   *istiosec.Rule
	}
	const allow, deny = istiosec.AuthorizationPolicy_ALLOW, istiosec.AuthorizationPolicy_DENY
	for name, test := range map[string]struct {
		oldestFirst []written
		want        string
	}{
		"all": {
			[]written{{"z", deny, from(4000)}, {"a", allow, from(4000)}}, "deny shop/z; allow shop/a",
		},
		"an ALLOW too many": {
			[]written{{"z", deny, from(5000)}, {"a", allow, from(4000)}, {"b", allow, from(1)}},
			"deny shop/z; allow shop/b; ISM0216",
		},
		"a DENY too many": {
			[]written{{"z", allow, from(5000)}, {"a", deny, from(4000)}, {"b", deny, from(1)}},
			"deny shop/b closed-by-shop/a; allow shop/z; ISM0216",
		},
		"conditions beside every source": {
			[]written{{"z", allow, from(1)}, {"a", deny, product}}, "deny closed-by-shop/a; allow shop/z; ISM0216",
		},
		"one that is too much for itself": {
			[]written{{"a", allow, from(9000)}, {"z", allow, from(1)}}, "deny; allow shop/z; ISM0216",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
				&v1alpha1.Mesh{
					ObjectMeta: metav1.ObjectMeta{Name: "m"},
					Spec:       v1alpha1.MeshSpec{TrustDomain: "m.example"},
				},
			)}
			origins := map[snapshot.Key]snapshot.Origin{}
			for n, w := range test.oldestFirst {
				p := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: w.name}}
				p.Spec.Action, p.Spec.Rules = w.action, []*istiosec.Rule{w.rule}
				cfg = cfg.With(snapshot.PutAll(p))
				origins[snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "shop", Name: w.name}] = snapshot.Origin{
					FirstSeen: time.Unix(int64(n), 0),
				}
			}
			slices.SortFunc(snapshot.Of[*security.AuthorizationPolicy](cfg),
				func(a, b *security.AuthorizationPolicy) int { return strings.Compare(a.Name, b.Name) })
			cfg.Objects = cfg.Objects.WithOrigins(origins)
			reg := &snapshot.Registry{Workloads: []snapshot.Workload{{
				Name: "web", Namespace: "shop", ServiceAccount: "web", Node: "n",
				Ports: []snapshot.WorkloadPort{{Number: 80}},
			}}}
			mesh, findings := Mesh(&snapshot.Snapshot{Config: cfg, Registry: reg})
			policies := mesh.Workloads[model.WorkloadID{Namespace: "shop", Name: "web"}].Inbound[0].Policies
			got := "deny"
			for _, p := range policies.Deny {
				got += " " + p.Name
			}
			got += "; allow"
			for _, p := range policies.Allow {
				got += " " + p.Name
			}
			for _, f := range findings {
				if f.Code == "ISM0216" {
					got += "; " + string(f.Code)
				}
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
