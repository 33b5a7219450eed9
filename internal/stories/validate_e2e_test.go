//go:build e2e

package stories

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// TestEnvoyAccepts lets a real Envoy judge what every proxy of every story is told: routes, endpoints and roots stand
// inside the listeners and clusters that would ask for them, so that all of it is checked.
func TestEnvoyAccepts(t *testing.T) {
	binary := locate(t)
	for _, path := range storyFiles(t) {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Read("testdata", a)
		if err != nil {
			t.Fatal(err)
		}
		mesh, _ := compile.Mesh(s.Snapshot)
		if mesh == nil {
			continue
		}
		for _, n := range s.Snapshot.Registry.Nodes {
			t.Run(storyName(path)+"/"+n.Name, func(t *testing.T) {
				t.Parallel()
				if err := validate(t, binary, wholeConfig(t, Resources(mesh, n.Name))); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestEnvoyJudges makes sure that the judge is awake: what Envoy cannot tell apart, and what it was not told, it
// refuses.
func TestEnvoyJudges(t *testing.T) {
	binary := locate(t)
	a, err := txtar.ParseFile("testdata/mesh/one-caller.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read("testdata", a)
	if err != nil {
		t.Fatal(err)
	}
	mesh, _ := compile.Mesh(s.Snapshot)
	for want, spoil := range map[string]func(static map[string]any){
		"same matching rules": func(static map[string]any) {
			for _, l := range static["listeners"].([]any) {
				l := l.(map[string]any)
				chains, _ := l["filter_chains"].([]any)
				l["filter_chains"] = append(chains, chains...)
			}
		},
		"Unknown static certificate": func(static map[string]any) { static["secrets"] = nil },
		"unknown cluster": func(static map[string]any) {
			static["clusters"] = static["clusters"].([]any)[:1]
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			config := wholeConfig(t, Resources(mesh, "n1"))
			spoil(config["static_resources"].(map[string]any))
			if err := validate(t, binary, config); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want a refusal with %q", err, want)
			}
		})
	}
}

func locate(t *testing.T) string {
	t.Helper()
	binary, err := envoyproc.Locate("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func validate(t *testing.T, binary string, config map[string]any) error {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--mode", "validate", "--concurrency", "1", "-l", "warning", "-c",
		file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("deprecated")) {
		return fmt.Errorf("Envoy refuses it, or finds it old: %w\n%s", err, out)
	}
	return nil
}

// wholeConfig is a bootstrap in which all resources are static.
func wholeConfig(t *testing.T, rs map[string][]*envoy.Resource) map[string]any {
	t.Helper()
	text, err := envoyproc.Bootstrap{
		Node: "n", AgentSocket: "/nowhere/agent.sock", AdminSocket: "/nowhere/admin.sock",
		MaxConnections: 1000, MaxHeapBytes: 1 << 30,
	}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var bootstrap map[string]any
	if err := json.Unmarshal(text, &bootstrap); err != nil {
		t.Fatal(err)
	}
	config, err := envoy.Static(bootstrap, slices.Concat(slices.Collect(maps.Values(rs))...), placeholder())
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// placeholder stands for all certificates that the agent would give.
var placeholder = sync.OnceValue(func() envoy.Placeholder {
	p, err := envoyproc.NewPlaceholder()
	if err != nil {
		panic(err)
	}
	return p
})
