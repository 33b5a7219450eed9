package file

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
)

// scribbler changes a folder at random: it writes, breaks, doubles, moves, renames and removes.
type scribbler struct {
	rand  *rand.Rand
	dir   string
	files map[string]string
}

func (s *scribbler) pick(list ...string) string { return list[s.rand.IntN(len(list))] }

// document is one that is good, or broken in one of many ways.
func (s *scribbler) document() string {
	name := s.pick("one", "two")
	good := policyYAML(s.pick("shop", "pub"), name, s.pick("DENY", "ALLOW"))
	return s.pick(
		good, good, good, good,
		strings.Replace(good, "action", "actoin", 1),
		strings.Replace(good, "rules: [", "rules: [[", 1),
		strings.Replace(good, "kind: ", "kind ", 1),
		strings.Replace(good, "name: "+name, "generateName: x", 1),
		strings.Replace(good, "security.istio.io/v1", "security.istio.io/v3", 1),
		strings.Replace(good, "AuthorizationPolicy", "RequestAuthentication", 1),
		good[:s.rand.IntN(len(good))]+"\n",
		"---\nkind: List\nitems:\n- "+strings.ReplaceAll(good[4:], "\n", "\n  ")+"\n",
		"---\n{{ include \"x\" . }}\n",
		"---\nnull\n", "---\n7\n", "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
		"---\napiVersion: isthmus.dev/v1alpha1\nkind: Mesh\nmetadata: {name: "+
			name+"}\nspec: {trustDomain: "+name+".example}\n",
		"---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: "+
			name+", namespace: shop}\nspec: {address: "+s.pick("10.0.0.1", "nowhere")+"}\n",
	)
}

// change does one thing and says what.
func (s *scribbler) change() string {
	name, other := s.pick("a.yaml", "b.yaml", "c.yaml"), s.pick("0.yaml", "a.yaml", "z.yaml")
	text, there := s.files[name]
	switch s.rand.IntN(8) {
	case 0:
		delete(s.files, name)
		return "removed " + name
	case 1, 2:
		if there && name != other {
			delete(s.files, name)
			s.files[other] = text + "# nothing\n"
		}
		return "renamed " + name + " to " + other
	case 3:
		if documents := strings.Split(text, "\n---\n"); there && len(documents) > 1 {
			s.rand.Shuffle(len(documents), func(i, j int) { documents[i], documents[j] = documents[j], documents[i] })
			s.files[name] = strings.Join(documents, "\n---\n")
		}
		return "shuffled " + name
	case 4:
		s.files[other] = text + "# nothing\n"
		return "copied " + name + " to " + other
	case 5:
		if there {
			s.files[name] = text + s.document()
		}
		return "added to " + name
	}
	s.files[name] = "# nothing\n" // an empty one is given time
	for range s.rand.IntN(4) {
		s.files[name] += s.document()
	}
	return "wrote " + name
}

// write makes the folder what it is to be.
func (s *scribbler) write(t *testing.T) {
	t.Helper()
	for _, name := range []string{"0.yaml", "a.yaml", "b.yaml", "c.yaml", "z.yaml"} {
		path := filepath.Join(s.dir, name)
		text, there := s.files[name]
		if was, err := os.ReadFile(path); !there && err == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if there && (err != nil || string(was) != text) {
			write(t, path, text)
		}
		if there {
			old := time.Now().Add(-time.Minute) // it is not in the middle of a change
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, filepath.Join(s.dir, "always.yaml"), "# nothing\n")
}

// meaning is what a configuration says, and which file says it. A process that starts may close more: it does not know
// whether what is out of sight ever was good.
func meaning(c *snapshot.Config) string {
	certain := *c
	certain.Closed = slices.DeleteFunc(slices.Clone(c.Closed),
		func(o snapshot.Closed) bool { return o.Reason == outOfSightReason })
	certain.Findings = nil // their lines may be those of a copy
	words := []string{policies(&certain)}
	if c.Mesh() != nil {
		words = append(words, "mesh "+c.Mesh().Name)
	}
	for _, e := range snapshot.Of[*networking.WorkloadEntry](c) {
		words = append(words, e.Name+" at "+e.Spec.Address)
	}
	for o := range c.Objects.All() {
		words = append(words, fmt.Sprintf("%s in %s", o.Key, filepath.Base(o.Origin.File)))
	}
	return strings.Join(words, "\n")
}

// TestRestartChangesNothing: whatever is done to a folder, a process that starts means what one means that was there
// all along.
func TestRestartChangesNothing(t *testing.T) {
	for seed := range uint64(15) {
		s := &scribbler{rand: rand.New(rand.NewPCG(seed, 3)), dir: t.TempDir(), files: map[string]string{}}
		copies, kept := t.TempDir(), &fakeAges{}
		now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
		begin := func(copies string, kept *fakeAges) *folder {
			a, err := openAges(t.Context(), kept, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			return newFolder(s.dir, schema.New().Validate, openCopies(s.dir, copies, slog.New(slog.DiscardHandler)), a,
				true)
		}
		running := begin(copies, kept)
		var done []string
		for range 25 {
			done = append(done, s.change())
			s.write(t)
			now = now.Add(time.Duration(s.rand.IntN(90)) * time.Second)
			before := t.TempDir()
			if err := os.CopyFS(before, os.DirFS(copies)); err != nil {
				t.Fatal(err)
			}
			starting := begin(before, &fakeAges{rows: maps.Clone(kept.rows)})
			starting.refreshAll(t.Context(), nil, now)
			running.refreshAll(t.Context(), nil, now)
			if want, got := meaning(running.config), meaning(starting.config); got != want {
				t.Fatalf("seed %d: %s\nrunning:\n%s\nstarting:\n%s\nfiles: %q", seed, strings.Join(done, ", "), want,
					got, s.files)
			}
		}
	}
}
