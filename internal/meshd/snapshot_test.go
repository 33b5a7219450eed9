package meshd

import (
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What is wrong, by the word of agents too, follows from the snapshot alone: from one of the past it can be had again,
// as it was, though the agents say something else by now.
func TestFindingsFollowFromTheSnapshot(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	startWards(p)
	ill := p.illAs("node-a", dislikes("poison"), nil, workload("payments", "payments", "10.0.0.2"))
	p.lived()
	p.write("poison.yaml", callable("poison", "1"))
	eventually(t, "told", func() bool { return p.isTold("node-a", "AuthorizationPolicy default/poison") })
	ill.crash()
	eventually(t, "in quarantine", func() bool { return len(p.quarantinedAt("node-a")) == 1 })

	shop := workload("shop", "shop", "10.0.0.1")
	reports := p.agent("node-b", []string{"default/shop"}, shop)
	reports.report(agentapi.Report{
		Workloads: []snapshot.Workload{shop, workload("evil", "evil", "10.0.0.9")},
		Troubles: []snapshot.Trouble{
			{Workload: "default/shop", Reason: "port 15001 is taken"},
			{Workload: "default/payments", Reason: "not mine"},
		},
		Outside: []snapshot.Outside{
			{Workload: "default/shop", Plaintext: []string{"10.0.0.2", "192.0.2.7"}, PlaintextCount: 3},
		},
	})
	codes := func(fs []finding.Finding) (out []string) {
		for _, f := range fs {
			if slices.Contains([]finding.Code{"ISM0013", "ISM0230", "ISM0280", "ISM0342"}, f.Code) {
				out = append(out, string(f.Code)+" "+f.Object.String())
			}
		}
		return out
	}
	want := []string{
		"ISM0013 workload default/evil", "ISM0280 workload default/shop", "ISM0230 AuthorizationPolicy default/poison",
		"ISM0342 workload default/shop",
	}
	var then *spine.Published
	eventually(t, "all of it is found", func() bool {
		then = p.d.loop.Published()
		got := codes(then.Findings)
		slices.Sort(got)
		return slices.Equal(got, slices.Sorted(slices.Values(want)))
	})
	reports.report(agentapi.Report{Workloads: []snapshot.Workload{shop}})
	p.write("poison.yaml", "# nothing any more\n")
	eventually(t, "none of it is found any more", func() bool { return len(codes(p.d.loop.Published().Findings)) == 0 })

	again := compile.Next(nil, then.Snapshot).Known()
	text := func(fs []finding.Finding) (out []string) {
		for _, f := range fs {
			out = append(out, f.String())
		}
		return out
	}
	same(t, "the findings of then", text(again), text(then.Findings))
	plain := text(again)
	if !slices.ContainsFunc(plain, func(f string) bool {
		return strings.Contains(f, "from 10.0.0.2 (workload default/payments), 192.0.2.7 and 1 more")
	}) {
		t.Errorf("who calls in plaintext is not named:\n%s", strings.Join(plain, "\n"))
	}
}
