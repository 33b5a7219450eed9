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

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// TestEnvoyAccepts lets a real Envoy judge what every proxy of every story is told: routes, endpoints and roots stand
// inside the listeners and clusters that would ask for them, so that all of it is checked.
func TestEnvoyAccepts(t *testing.T) {
	binary := locate(t)
	for _, path := range storyFiles(t) {
		_, s := readStory(t, path)
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
	_, s := readStory(t, "testdata/mesh/one-caller.txtar")
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

// TestEnvoyAcceptsRoutes: no object makes several routes yet, so these are put into the model of a story.
func TestEnvoyAcceptsRoutes(t *testing.T) {
	binary := locate(t)
	_, s := readStory(t, "testdata/mesh/one-caller.txtar")
	mesh, _ := compile.Mesh(s.Snapshot)
	till := mesh.Workloads[model.WorkloadID{Namespace: "default", Name: "till"}]
	payments := &till.Outbound[0]
	whole := *payments.Sole()
	whole.Weight = 9
	subset, absent := whole, whole
	subset.Set.Subset, subset.Weight = "tier=front,version=v2", 1
	absent.Service = &model.Service{Host: "away"}
	absent.Groups, absent.Changing, absent.Absent = nil, true, []string{"peer bank is suspended"}
	mesh.Endpoints[subset.Set] = mesh.Endpoints[whole.Set]
	text := func(kind model.MatchKind, value string) model.Match { return model.Match{Kind: kind, Value: value} }
	match := func(m model.RequestMatch) *model.Route {
		return &model.Route{Match: &m, To: []model.Destination{subset}}
	}
	do := func(a model.Actions) *model.Route {
		return &model.Route{Match: &model.RequestMatch{}, Actions: &a, To: []model.Destination{subset}}
	}
	payments.Routes = []*model.Route{
		match(model.RequestMatch{Path: text(model.Exact, "/a"), Method: text(model.Exact, "PUT")}),
		match(model.RequestMatch{Path: text(model.Prefix, "/b"), Authority: text(model.Suffix, ".example")}),
		match(model.RequestMatch{Path: text(model.Suffix, ".js"), Headers: []model.NamedMatch{
			{Name: "x-a", Match: text(model.Present, "")}, {Name: "x-b", Match: text(model.Exact, "")},
		}}),
		match(model.RequestMatch{Path: text(model.Template, "/{*}/c/{**}"), NotHeaders: []model.NamedMatch{
			{Name: "x-a", Match: text(model.Present, "")}, {Name: "x-b", Match: text(model.Prefix, "1")},
		}}),
		match(model.RequestMatch{Query: []model.NamedMatch{
			{Name: "p", Match: text(model.Present, "")}, {Name: "q", Match: text(model.Exact, "1")},
		}}),
		do(model.Actions{Redirect: &model.Redirect{
			Scheme: "https", Authority: "b.example", Port: 81, Path: "/", Status: 307,
		}}),
		do(model.Actions{
			Rewrite: model.Rewrite{Path: "/d", Authority: "b.example"}, Timeout: time.Second,
			Request: model.HeaderChanges{
				Set: []model.Header{{Name: "a", Value: "100%"}}, Add: []model.Header{{Name: "b", Value: "%REQ(c)%"}},
				Remove: []string{"c"},
			},
			Response: model.HeaderChanges{Set: []model.Header{{Name: "a", Value: ""}}, Remove: []string{"server"}},
			Retries:  &model.RetryLimit{Most: 1, PerTry: time.Second},
			Mirrors:  []model.Mirror{{To: whole, PerMillion: 1_000_000}},
		}),
		do(model.Actions{Retries: &model.RetryLimit{}}),
		{Match: &model.RequestMatch{Path: text(model.Exact, "/nobody")}, To: []model.Destination{absent}},
		{To: []model.Destination{whole, subset, absent}},
	}
	resources := Resources(mesh, "n1")
	if err := validate(t, binary, wholeConfig(t, resources)); err != nil {
		t.Error(err)
	}
	n := 0
	for _, r := range resources[envoy.ClusterType] {
		if strings.Contains(r.Name, "{tier=front,version=v2}") {
			n++
		}
	}
	if n != 1 || len(resources[envoy.RouteType]) != 2 {
		t.Errorf("%d clusters of the subset, %d route configurations", n, len(resources[envoy.RouteType]))
	}
	resources = Resources(mesh, "n1")
	resources[envoy.ClusterType] = slices.DeleteFunc(slices.Clone(resources[envoy.ClusterType]),
		func(r *envoy.Resource) bool { return strings.Contains(r.Name, "{") })
	if err := validate(t, binary, wholeConfig(t, resources)); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("without the cluster of the subset: %v", err)
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
