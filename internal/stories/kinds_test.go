package stories

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
)

// TestEveryKind: a row of the table of kinds is more than a row. A kind is decoded, checked, documented and told of in
// a story, and a change of an object of it reaches a proxy, by the short way of compile.Next too.
func TestEveryKind(t *testing.T) {
	refused := refusedKinds(t)
	for _, k := range kind.All {
		t.Run(k.Name, func(t *testing.T) {
			documented(t, k)
			if !refused[k.Name] {
				t.Errorf("no refusal is shown: write internal/istioyaml/testdata/bad/%s.yaml, with a line "+
					"\"# want: CODE LINE FIELD\" for each finding", strings.ToLower(k.Name))
			}
			reachesProxies(t, k)
		})
	}
}

// documented demands a line in the list of kinds, and a page whose examples are free of findings and decode into the Go
// type of the kind.
func documented(t *testing.T, k kind.Kind) {
	page := strings.ToLower(k.Name) + ".md"
	list, err := os.ReadFile("../../docs/kinds/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if link := "| [" + k.Name + "](" + page + ") |"; !strings.Contains(string(list), link) {
		t.Errorf("docs/kinds/README.md does not list it: add a line that begins with %q", link)
	}
	page = "docs/kinds/" + page
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Errorf("it has no page: write %s, with an example", page)
		return
	}
	seen := false
	for _, part := range strings.Split(string(text), "\n```yaml\n")[1:] {
		example, _, _ := strings.Cut(part, "\n```")
		f := istioyaml.Decode(page, []byte(example+"\n"), schema.New().Validate, nil)
		for _, fd := range f.Findings {
			t.Errorf("an example of %s is not sound: %s", page, fd)
		}
		seen = seen || slices.ContainsFunc(f.Objects, func(o *snapshot.Object) bool {
			return o.Key.Kind == k.Name && reflect.TypeOf(o.Value) == reflect.PointerTo(k.Type)
		})
	}
	if !seen {
		t.Errorf("%s shows no example of it: write one that begins with a line ```yaml", page)
	}
}

// refusedKinds are those of which some testdata of istioyaml shows a refusal; that Isthmus fails on an object is none.
func refusedKinds(t *testing.T) map[string]bool {
	paths, err := filepath.Glob("../istioyaml/testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files: %v", err)
	}
	out := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range istioyaml.Decode(path, text, schema.New().Validate, nil).Findings {
			if fd.Severity == finding.Error && fd.Code != "ISM0202" {
				out[fd.Object.Kind] = true
			}
		}
	}
	return out
}

// reachesProxies takes each object of a kind out of each of the kind's stories, and puts it back. What Next makes of
// that is what Mesh makes of it, and at least once some Envoy is configured otherwise.
func reachesProxies(t *testing.T, k kind.Kind) {
	paths, _ := filepath.Glob("testdata/" + strings.ToLower(k.Name) + "/*.txtar")
	objects, reached := 0, false
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		story, err := Read("testdata", a)
		if err != nil {
			t.Fatal(err)
		}
		with := story.Snapshot
		for o := range with.Config.Objects.All() {
			if o.Key.Kind != k.Name {
				continue
			}
			objects++
			var change snapshot.Change
			change.Remove(o.Key)
			without := *with
			without.Config = with.Config.With(change)
			reached = reached || !maps.Equal(toldOf(with), toldOf(&without))
			follows(t, storyName(path)+": "+o.Key.String()+" goes", with, &without)
			follows(t, storyName(path)+": "+o.Key.String()+" comes", &without, with)
		}
	}
	switch {
	case objects == 0:
		t.Errorf("no story has an object of it: write internal/stories/testdata/%s/<case>.txtar with what goes in, "+
			"and run go test ./internal/stories -update", strings.ToLower(k.Name))
	case !reached:
		t.Errorf("no object of it in internal/stories/testdata/%s reaches an Envoy: each is configured the same without it",
			strings.ToLower(k.Name))
	}
}

// follows demands that the proxies come to know of a change: Next compiles it as Mesh does, and the comparison of views
// sees it.
func follows(t *testing.T, what string, before, after *snapshot.Snapshot) {
	was := compile.Next(nil, before)
	is := compile.Next(was, after).Mesh
	if !maps.Equal(told(after, is), toldOf(after)) {
		t.Errorf("%s, and compile.Next tells some proxy something else than compile.Mesh: a step that reads the kind is not "+
			"made again (made.from, inputs)", what)
	}
	if was.Mesh == nil || is == nil {
		return
	}
	for _, n := range after.Registry.Nodes {
		a, b := view.For(was.Mesh, n.Name), view.For(is, n.Name)
		same := view.Equal(a, b) || view.SameGlobals(was.Mesh, is) &&
			view.SameWorkloads(was.Mesh.Proxies[n.Name], is.Proxies[n.Name])
		if same && !reflect.DeepEqual(envoy.Build(a), envoy.Build(b)) {
			t.Errorf("%s, and the configuration of proxy %s is another while its views compare as equal: see view.Equal",
				what, n.Name)
		}
	}
}

func toldOf(snap *snapshot.Snapshot) map[string]string {
	mesh, _ := compile.Mesh(snap)
	return told(snap, mesh)
}

// told is the configuration of every proxy, by proxy, type and name.
func told(snap *snapshot.Snapshot, mesh *model.Mesh) map[string]string {
	out := map[string]string{}
	if mesh == nil {
		return out
	}
	for _, n := range snap.Registry.Nodes {
		for typ, rs := range Resources(mesh, n.Name) {
			for _, r := range rs {
				out[n.Name+" "+typ+" "+r.Name] = string(r.Body)
			}
		}
	}
	return out
}
