package demo

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/node"
)

// TestSampleAgentsAreTheDemos holds the settings that a newcomer reads in samples/agents to those that the demo writes.
func TestSampleAgentsAreTheDemos(t *testing.T) {
	w := &world{plan: newPlan(DefaultPrefix), files: files{DefaultRunDir}}
	for _, m := range w.plan.meshes {
		for verb, settings := range map[string]any{"node": w.nodeSettings(m), "gateway": w.gatewaySettings(m)} {
			text, err := yaml.Marshal(settings)
			if err != nil {
				t.Fatal(err)
			}
			written := t.TempDir() + "/agent.yaml"
			if err := writeFile(written, text); err != nil {
				t.Fatal(err)
			}
			got, err := node.LoadConfig(written)
			if err != nil {
				t.Fatal(err)
			}
			want, err := node.LoadConfig("../../samples/agents/" + m.name + "-" + verb + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(m.host)); diff != "" {
				t.Errorf("%s %s: -sample +demo\n%s", m.name, verb, diff)
			}
		}
	}
}
