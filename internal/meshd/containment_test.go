package meshd

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// callable is a policy for payments that lets everybody call.
func callable(name, note string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %[1]s, namespace: default, annotations: {note: %[2]q}}
spec: {selector: {matchLabels: {app: payments}}, rules: [{to: [{operation: {paths: [/in-force/%[1]s/]}}]}]}
`, name, note)
}

const payments = "AuthorizationPolicy default/payments"

func startIll(t *testing.T, verdict func([]agentapi.TrialResource) string) (*plane, *ill) {
	t.Helper()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	startWards(p)
	i := p.illAs("node-a", verdict, nil, workload("payments", "payments", "10.0.0.2"))
	p.lived()
	return p, i
}

// A proxy that crashes is told what it lived with, at once; then all but the culprit, what came later included; and the
// culprit when it says something else, but not when it only moves.
func TestCrashIsContained(t *testing.T) {
	t.Parallel()
	wait := make(chan struct{})
	p, i := startIll(t, func(rs []agentapi.TrialResource) string {
		<-wait
		return dislikes("poison")(rs)
	})
	p.write("poison.yaml", callable("poison", "1")+callable("beside", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.crash()
	eventually(t, "held", func() bool { c := p.proxy("node-a").Contained; return c != nil && c.Held && c.Searching })
	eventually(t, "told what it lived with", func() bool {
		return !p.isTold("node-a", "AuthorizationPolicy default/poison") && p.isTold("node-a", payments)
	})
	p.write("later.yaml", callable("later", "1"))
	close(wait)
	eventually(t, "in quarantine", func() bool {
		return reflect.DeepEqual(p.quarantinedAt("node-a"), []string{"AuthorizationPolicy default/poison"})
	})
	eventually(t, "the rest is in force", func() bool {
		return p.isTold("node-a", "AuthorizationPolicy default/beside") &&
			p.isTold("node-a", "AuthorizationPolicy default/later")
	})
	eventually(t, "a finding", func() bool { return p.found("ISM0230") != "" })
	contains(t, "finding", p.found("ISM0230"), "AuthorizationPolicy default/poison", "poison.yaml:2", "node-a",
		"assert failure: poison", "Envoy ended: it crashed: signal: aborted")
	if n, by := p.d.containment.Totals(); n != 1 || by["quarantine"] != 1 || by["held"] != 0 || by["searched"] != 0 {
		t.Errorf("metrics: %d objects, proxies %v", n, by)
	}
	eventually(t, "an event", func() bool {
		events, err := p.d.db.Events(t.Context(), state.EventFilter{Action: "quarantine begin"})
		return err == nil && len(events) == 1 && events[0].Object == "AuthorizationPolicy default/poison" &&
			strings.HasPrefix(events[0].Detail, "at node-a: ")
	})
	tried := i.trials.Load()

	p.write("poison.yaml", "# moved\n\n"+callable("poison", "1")+callable("beside", "2"))
	eventually(t, "it moved", func() bool { return strings.Contains(p.found("ISM0230"), "poison.yaml:4") })
	if q := p.quarantinedAt("node-a"); len(q) != 1 {
		t.Errorf("an object that moved: %v in quarantine", q)
	}
	p.write("poison.yaml", callable("poison", "2"))
	eventually(t, "released", func() bool { return p.proxy("node-a").Contained == nil && p.found("ISM0230") == "" })
	eventually(t, "in force", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	if n := i.trials.Load(); n != tried {
		t.Errorf("%d trials without a need", n-tried)
	}
}

// What a proxy refuses is found alike; it need not be told what it had before, since Envoy has that still.
func TestRefusalIsContained(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	startWards(p)
	p.illAs("node-a", dislikes("poison"), func(r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.Resources {
			if why := dislikes("poison")([]agentapi.TrialResource{{Body: res.Resource.Value}}); why != "" {
				return why
			}
		}
		return ""
	}, workload("payments", "payments", "10.0.0.2"))
	p.lived()
	p.write("poison.yaml", callable("poison", "1")+callable("beside", "1"))
	eventually(t, "in quarantine", func() bool {
		return reflect.DeepEqual(p.quarantinedAt("node-a"), []string{"AuthorizationPolicy default/poison"})
	})
	eventually(t, "it lives with the rest", func() bool {
		for _, ty := range p.proxy("node-a").Types {
			if ty.Nack != "" || ty.Acked != ty.Sent {
				return false
			}
		}
		return p.isTold("node-a", "AuthorizationPolicy default/beside")
	})
	contains(t, "finding", p.found("ISM0230"), "Envoy refuses RDS: ")
}

// Several culprits are found, and nothing else is closed.
func TestSeveralCulprits(t *testing.T) {
	t.Parallel()
	p, i := startIll(t, dislikes("poison-3", "poison-17", "poison-18"))
	var all string
	for n := range 20 {
		all += callable(fmt.Sprintf("poison-%d", n), "1")
	}
	p.write("poison.yaml", all)
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison-19") })
	i.crash()
	want := []string{
		"AuthorizationPolicy default/poison-17", "AuthorizationPolicy default/poison-18",
		"AuthorizationPolicy default/poison-3",
	}
	eventually(t, "in quarantine", func() bool { return reflect.DeepEqual(p.quarantinedAt("node-a"), want) })
	if n := i.trials.Load(); n > 20 {
		t.Errorf("it took %d trials", n)
	}
}

// A proxy that crashes before it lived with anything is searched for among all objects.
func TestCrashFromTheBeginning(t *testing.T) {
	t.Parallel()
	p := newPlane(t,
		map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML, "poison.yaml": callable("poison", "1")})
	p.plant = func(d *Daemon) { d.stableAfter = time.Hour }
	p.start()
	i := p.illAs("node-a", dislikes("poison"), nil, workload("payments", "payments", "10.0.0.2"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.report(agentapi.Report{Version: "test", Workloads: i.workloads})
	i.crash()
	eventually(t, "in quarantine", func() bool {
		return reflect.DeepEqual(p.quarantinedAt("node-a"), []string{"AuthorizationPolicy default/poison"})
	})
	eventually(t, "the rest is in force", func() bool { return p.isTold("node-a", payments) })
}

// An Envoy that crashes once for another reason goes on with the newest configuration. One that does so again, though
// it finds nothing wrong, lives without what was changed.
func TestCrashThoughNothingIsFoundWrong(t *testing.T) {
	t.Parallel()
	p, i := startIll(t, dislikes())
	p.write("poison.yaml", callable("poison", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.crash()
	eventually(t, "tried", func() bool { return i.trials.Load() > 0 && p.proxy("node-a").Contained == nil })
	eventually(t, "told again", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.crash() // before it counts as lived with
	eventually(t, "in quarantine", func() bool {
		return reflect.DeepEqual(p.quarantinedAt("node-a"), []string{"AuthorizationPolicy default/poison"})
	})
	eventually(t, "a finding", func() bool { return p.found("ISM0230") != "" })
	contains(t, "finding", p.found("ISM0230"), "though it finds nothing wrong with its configuration",
		"one of several that may be the cause")
}

// Where no object is the cause it is said, and the proxy is held on what it lived with until something changes.
func TestNoCulprit(t *testing.T) {
	t.Parallel()
	p, i := startIll(t, func([]agentapi.TrialResource) string { return "out of order" })
	p.write("poison.yaml", callable("poison", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.crash()
	eventually(t, "a finding", func() bool { return p.found("ISM0231") != "" })
	contains(t, "finding", p.found("ISM0231"), "proxy node-a", "it runs on an earlier configuration", "out of order",
		"Fix: ")
	if c := p.proxy("node-a").Contained; c == nil || !c.Held || len(c.Quarantined) > 0 {
		t.Errorf("it is contained as %+v", c)
	}
	fine := dislikes()
	i.verdict.Store(&fine)
	p.write("later.yaml", callable("later", "1"))
	eventually(t, "it goes on", func() bool {
		return p.isTold("node-a", "AuthorizationPolicy default/poison") &&
			p.isTold("node-a", "AuthorizationPolicy default/later") && p.found("ISM0231") == ""
	})
}

// An agent that gives no verdict keeps nothing that may be the culprit in force.
func TestNoVerdict(t *testing.T) {
	t.Parallel()
	p, i := startIll(t, nil)
	p.write("poison.yaml", callable("poison", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	i.crash()
	eventually(t, "in quarantine", func() bool {
		return reflect.DeepEqual(p.quarantinedAt("node-a"), []string{"AuthorizationPolicy default/poison"})
	})
	eventually(t, "a finding", func() bool { return p.found("ISM0230") != "" })
	contains(t, "finding", p.found("ISM0230"), "its agent is not connected")
}

// A node that lies about its Envoy changes what that is told, and nothing that any other proxy is told.
func TestLyingNode(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	startWards(p)
	honest := p.ill("node-b", workload("payments", "payments", "10.0.0.2"))
	p.lived()
	before := p.objectsAt("node-b")
	thief := p.illAs("node-a", func(rs []agentapi.TrialResource) string {
		for _, r := range rs {
			if strings.Contains(r.Name, "default/shop>payments") {
				return "\x1b[2Ja lie of " + strings.Repeat("very ", 5_000) + "many words"
			}
		}
		return ""
	}, nil, workload("shop", "shop", "10.0.0.1"))
	p.lived()
	for range 100 {
		thief.crash()
	}
	eventually(t, "in quarantine at the liar's", func() bool { return len(p.quarantinedAt("node-a")) > 0 })
	for range 200 {
		thief.crash()
		waittest.Pace(5 * time.Millisecond)
	}
	if n := strings.Count(p.logs.String(), "proxy is contained"); n > 20+2 {
		t.Errorf("%d searches for one node", n)
	}
	if got := p.objectsAt("node-b"); !reflect.DeepEqual(got, before) || p.proxy("node-b").Contained != nil {
		t.Errorf("the honest node is told %v, was told %v", got, before)
	}
	if f := p.found("ISM0230"); len(f) > 2000 || strings.Contains(f, "node-b") {
		t.Errorf("finding: %.3000s", f)
	}
	if honest.trials.Load() > 0 {
		t.Error("the honest node was bothered")
	}
}

// A verdict that never comes holds up its own node's search alone.
func TestSilentJudge(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	startWards(p)
	silent := p.illAs("node-s", func([]agentapi.TrialResource) string { select {} }, nil,
		workload("shop", "shop", "10.0.0.1"))
	i := p.illAs("node-a", dislikes("poison"), nil, workload("payments", "payments", "10.0.0.2"))
	p.lived()
	p.write("poison.yaml", callable("poison", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	silent.crash()
	silent.crash()
	eventually(t, "the silent one is asked", func() bool { return silent.trials.Load() > 0 })
	i.crash()
	i.crash() // it may have lived with that by now
	eventually(t, "in quarantine", func() bool { return len(p.quarantinedAt("node-a")) == 1 })
}
