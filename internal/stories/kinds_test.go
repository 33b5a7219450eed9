package stories

import (
	"encoding/json"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/contain"
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
// a story, and a change of an object of it reaches a proxy, by the short way of compile.Next too. An object that is not
// carried out closes what the row says, and a mesh has as many of the kind as the row says.
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
			closes(t, k)
			counts(t, k)
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
	objects, reached := 0, false
	for o, told := range objectsOf(t, k) {
		objects++
		without := told.without(o.Key)
		reached = reached || !maps.Equal(toldOf(told.Snapshot), toldOf(without))
		follows(t, told.name+": "+o.Key.String()+" goes", told.Snapshot, without)
		follows(t, told.name+": "+o.Key.String()+" comes", without, told.Snapshot)
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

// toldStory is a story that was read, and its name.
type toldStory struct {
	*Story
	name string
}

// objectsOf are the objects of a kind in the kind's stories.
func objectsOf(t *testing.T, k kind.Kind) iter.Seq2[*snapshot.Object, toldStory] {
	paths, err := filepath.Glob("testdata/" + strings.ToLower(k.Name) + "/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(*snapshot.Object, toldStory) bool) {
		for _, path := range paths {
			_, story := readStory(t, path)
			for o := range story.Snapshot.Config.Objects.All() {
				if o.Key.Kind == k.Name && !yield(o, toldStory{story, storyName(path)}) {
					return
				}
			}
		}
	}
}

// without is the snapshot without an object.
func (s *Story) without(key snapshot.Key) *snapshot.Snapshot {
	var change snapshot.Change
	change.Remove(key)
	return s.with(s.Snapshot.Config.With(change))
}

// with is the snapshot with another configuration.
func (s *Story) with(cfg *snapshot.Config) *snapshot.Snapshot {
	out := *s.Snapshot
	out.Config = cfg
	return &out
}

// closes breaks each object of a kind in its file, and quarantines it. Both close what the row says, and nothing else.
func closes(t *testing.T, k kind.Kind) {
	closed := map[string]bool{}
	for o, told := range objectsOf(t, k) {
		broken, err := config(map[string][]byte{"broken.yaml": document(t, k, o, func(doc, _ map[string]any) {
			doc["nobodyReadsThis"] = true
		})})
		if err != nil {
			t.Fatal(err)
		}
		if is := len(broken.Closed) > 0; broken.Objects.Len() > 0 || is != (k.Closes != kind.Nothing) {
			t.Errorf("%s: %s with a field that is not read: in force are %d objects, closed is %v", told.name, o.Key,
				broken.Objects.Len(), broken.Closed)
		}
		cfg := contain.Close(told.Snapshot.Config, []snapshot.Key{o.Key}, "a test closes it")
		if k.Singleton {
			if cfg.Objects.Get(o.Key) == nil {
				t.Errorf("%s: %s can be quarantined, and a mesh is nothing without it", told.name, o.Key)
			}
			continue
		}
		switch now := closedIn(told.with(cfg)); {
		case k.Closes != kind.Nothing:
			maps.Copy(closed, now)
			if k.Closes == kind.Declared && slices.ContainsFunc(slices.Collect(maps.Keys(now)),
				func(w string) bool { return w != o.Key.Namespace+"/"+o.Key.Name }) {
				t.Errorf("%s: quarantined, %s closes %v", told.name, o.Key, now)
			}
		case len(now) > 0 || !maps.Equal(toldOf(told.with(cfg)), toldOf(told.without(o.Key))):
			t.Errorf("%s: quarantined, %s closes %v, and proxies are told something else than without it", told.name, o.Key, now)
		}
	}
	if k.Closes != kind.Nothing && len(closed) == 0 {
		t.Errorf("no object of it in internal/stories/testdata/%s closes any workload when it is not carried out",
			strings.ToLower(k.Name))
	}
}

// closedIn are the workloads that something closes which is not carried out.
func closedIn(snap *snapshot.Snapshot) map[string]bool {
	out := map[string]bool{}
	mesh, _ := compile.Mesh(snap)
	for id, w := range mesh.Workloads {
		for _, in := range w.Inbound {
			if slices.ContainsFunc(in.Policies.Deny,
				func(p *model.Policy) bool { return strings.HasPrefix(p.Name, model.ClosedPrefix) }) {
				out[id.String()] = true
			}
		}
	}
	return out
}

// counts writes an object of a kind under two names. Both are in force, unless the row says that a mesh has one.
func counts(t *testing.T, k kind.Kind) {
	want := 2
	if k.Singleton {
		want = 1
	}
	for o := range objectsOf(t, k) {
		files := map[string][]byte{}
		for _, name := range []string{"one", "two"} {
			files[name+".yaml"] = document(t, k, o, func(_, metadata map[string]any) { metadata["name"] = name })
		}
		cfg, err := config(files)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Objects.Len() != want {
			t.Errorf("of two objects of it %d are in force, want %d: %v", cfg.Objects.Len(), want, cfg.Findings)
		}
		break
	}
}

// document writes an object as YAML, edited.
func document(t *testing.T, k kind.Kind, o *snapshot.Object, edit func(doc, metadata map[string]any)) []byte {
	var doc map[string]any
	text, err := json.Marshal(o.Value)
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	metadata := doc["metadata"].(map[string]any)
	delete(doc, "status")
	delete(metadata, "creationTimestamp")
	doc["apiVersion"], doc["kind"] = k.APIVersions[0], k.Name
	edit(doc, metadata)
	if text, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	return text
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
