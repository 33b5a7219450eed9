package meshd

import (
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What keeps a node from serving one of its workloads is a finding for as long as it does; of others' workloads it says
// nothing.
func TestAWorkloadsTroubleIsAFinding(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	good, bad, gone := workload("payments", "payments",
		"10.0.0.2"), workload("shop", "shop", "10.0.0.3"), workload("web", "web", "10.0.0.4")
	bad.Away, gone.Away = true, true
	all := []snapshot.Workload{good, bad, gone}
	a := p.agent("node-a", []string{"default/payments", "default/shop", "default/web"}, good)
	a.report(agentapi.Report{Workloads: all, Troubles: []snapshot.Trouble{
		{Workload: "default/shop", Reason: "a program of user 1000 listens at 0.0.0.0:15006"},
		{Workload: "default/web", Reason: "network namespace /run/netns/web does not exist", Absent: true},
		{Workload: "default/foreign", Reason: "not its own"},
	}})
	eventually(t, "a finding", func() bool { return p.found("ISM0280") != "" && p.found("ISM0281") != "" })
	contains(t, "the finding", p.found("ISM0280"), "workload default/shop",
		"node node-a does not serve it: a program of user 1000 listens at 0.0.0.0:15006")
	contains(t, "the finding", p.found("ISM0281"), "info", "workload default/web", "does not exist")
	p.served("the other one serves", "payments", "payments@10.0.0.2")
	a.report(agentapi.Report{Workloads: all[:1]})
	eventually(t, "no finding any more", func() bool { return p.found("ISM0280") == "" && p.found("ISM0281") == "" })
}

// What passes the mesh by is a finding for as long as it does.
func TestWhatPassesTheMeshByIsAFinding(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	w := workload("payments", "payments", "10.0.0.2")
	a := p.agent("node-a", []string{"default/payments"}, w)
	a.report(agentapi.Report{Workloads: []snapshot.Workload{w}, Outside: []snapshot.Outside{
		{
			Workload: "default/payments", Ports: []uint16{9100, 9101}, Count: 3,
			Connections:    []string{"10.0.0.2:8080 with 10.0.0.9:4711", "a", strings.Repeat("b", 5000)},
			PlaintextCount: 5, Plaintext: []string{"10.0.0.2", "10.0.0.77", "what"},
		},
		{Workload: "default/foreign", Ports: []uint16{1}, Count: 1, Connections: []string{"not its own"}},
	}})
	eventually(t, "a finding", func() bool { return p.found("ISM0340") != "" && p.found("ISM0341") != "" })
	contains(t, "the finding", p.found("ISM0340"), "warning", "workload default/payments",
		"3 connections that were open before node node-a captured it",
		"10.0.0.2:8080 with 10.0.0.9:4711, a, bbb")
	if len(p.found("ISM0340")) > 2000 {
		t.Errorf("what a node says is not bounded: %d bytes", len(p.found("ISM0340")))
	}
	contains(t, "the finding", p.found("ISM0341"), "info", "workload default/payments",
		"excludes its ports 9100 9101 from capture")
	contains(t, "the finding", p.found("ISM0342"), "info", "workload default/payments",
		"plaintext, which STRICT would refuse, from 10.0.0.2 (workload default/payments), 10.0.0.77, what and 2 more")
	a.report(agentapi.Report{Workloads: []snapshot.Workload{w}})
	eventually(t, "no finding any more",
		func() bool { return p.found("ISM0342") == "" && p.found("ISM0340") == "" && p.found("ISM0341") == "" })
}
