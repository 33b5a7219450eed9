package envoy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// TestWordsOfBoundary: for each answer that Envoy may give in a workload's name there is one for peers before it, which
// has the same status and headers and names nothing inside.
func TestWordsOfBoundary(t *testing.T) {
	managers := 0
	for seed := range uint64(10) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for name, p := range mesh.Proxies {
			v := view.For(mesh, name)
			for _, r := range envoy.Build(v).ByType[envoy.ListenerType] {
				workload, inbound := strings.CutPrefix(r.Name, "inbound/")
				if p.Gateway != nil || !inbound {
					continue
				}
				config, err := r.Config()
				if err != nil {
					t.Fatal(err)
				}
				list, _ := config["filter_chains"].([]any)
				for _, c := range list {
					for _, f := range c.(map[string]any)["filters"].([]any) {
						manager := f.(map[string]any)["typed_config"].(map[string]any)
						if replies, ok := manager["local_reply_config"].(map[string]any); ok {
							managers++
							saysTheSame(t, workload, replies["mappers"].([]any))
						}
					}
				}
			}
		}
	}
	if managers < 20 {
		t.Errorf("only %d places of HTTP were seen", managers)
	}
}

func saysTheSame(t *testing.T, workload string, mappers []any) {
	t.Helper()
	half := len(mappers) / 2
	for i, m := range mappers[:half+1] {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), workload) || strings.Contains(string(text), "LOCAL_REPLY_BODY") ||
			!strings.Contains(
				string(text),
				"isthmus.asserted",
			) || !strings.Contains(string(text), "isthmus: the boundary of ") {
			t.Errorf("%s: a peer may be told %s", workload, text)
		}
		if i == half {
			continue // whatever else there is
		}
		theirs, ours := m.(map[string]any), mappers[half+1+i].(map[string]any)
		for _, key := range []string{"status_code", "headers_to_add"} {
			a, _ := json.Marshal(theirs[key])
			b, _ := json.Marshal(ours[key])
			if string(a) != string(b) {
				t.Errorf("%s: %s is %s for peers and %s for others", workload, key, a, b)
			}
		}
	}
}
