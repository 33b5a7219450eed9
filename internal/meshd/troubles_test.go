package meshd

import (
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
	a.report(agentapi.Report{Workloads: all, Troubles: []agentapi.Trouble{
		{Workload: "default/shop", Reason: "a program of user 1000 listens at 0.0.0.0:15006"},
		{Workload: "default/web", Reason: "network namespace /run/netns/web does not exist", Absent: true},
		{Workload: "default/foreign", Reason: "not its own"},
	}})
	eventually(t, "a finding", func() bool { return p.found("ISM0280") != "" && p.found("ISM0281") != "" })
	contains(t, "the finding", p.found("ISM0280"), "Workload default/shop",
		"node node-a does not serve it: a program of user 1000 listens at 0.0.0.0:15006")
	contains(t, "the finding", p.found("ISM0281"), "info", "Workload default/web", "does not exist")
	p.served("the other one serves", "payments", "payments@10.0.0.2")
	a.report(agentapi.Report{Workloads: all[:1]})
	eventually(t, "no finding any more", func() bool { return p.found("ISM0280") == "" && p.found("ISM0281") == "" })
}
