package file

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/times"
	"isthmus.dev/isthmus/internal/yamltest"
)

func policyYAML(namespace, name, action string) string {
	return yamltest.Policy(namespace, name, "{selector: {matchLabels: {app: web}}, action: "+action+", rules: [{}]}")
}

// policies is a configuration in words: its policies with their actions, what is closed, then the codes of its
// findings.
func policies(c *snapshot.Config) string {
	var words []string
	for _, p := range snapshot.Of[*security.AuthorizationPolicy](c) {
		words = append(words, p.Namespace+"/"+p.Name+"="+p.Spec.Action.String())
	}
	for _, cl := range c.Closed {
		words = append(words, strings.TrimSpace("!"+cl.Key.String()+" "+cl.Selector["app"]))
	}
	for _, f := range c.Findings {
		words = append(words, string(f.Code))
	}
	return strings.Join(words, " ")
}

// steps writes files one after the other and compares what they mean then, in one process and, where that is the same,
// with a restart before each.
func steps(t *testing.T, restart bool, list []step) {
	t.Helper()
	dir, copies, ages := t.TempDir(), filepath.Join(t.TempDir(), "kept"), &fakeAges{}
	var s *Source
	for _, st := range list {
		if s == nil || restart {
			s = open(t, Config{Dir: dir, Copies: copies, Ages: ages, Validate: schema.New().Validate})
		}
		for name, text := range st.files {
			path := filepath.Join(dir, name)
			if text == "" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				continue
			}
			write(t, path, text)
			old := time.Now().Add(-time.Minute) // it is not in the middle of a change
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		c := s.Load(t.Context())
		if got := policies(c); got != st.want {
			t.Fatalf("%s: got\n  %s\nwant\n  %s\n%v", st.name, got, st.want, c.Findings)
		}
	}
}

type step struct {
	name  string
	files map[string]string // without text: removed
	want  string
}

// TestObjectsStay: an object that cannot be read stays as it was, its neighbours take effect, and what never was good
// closes: in a running process and across restarts alike.
func TestObjectsStay(t *testing.T) {
	deny, allow := policyYAML("shop", "deny", "DENY"), policyYAML("shop", "allow", "ALLOW")
	broken := strings.Replace(deny, "action", "actoin", 1)
	unread := strings.Replace(deny, "rules: [", "rules: [[", 1)
	untold := "---\nkind AuthorizationPolicy\nmetadata: {namespace: shop}\n"
	foreign := "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			steps(t, restart, []step{
				{
					"never good",
					map[string]string{"a.yaml": broken + allow},
					"shop/allow=ALLOW !AuthorizationPolicy shop/deny web ISM-SCH16",
				},
				{"mended", map[string]string{"a.yaml": deny + allow}, "shop/allow=ALLOW shop/deny=DENY"},
				{
					"broken, and a neighbour changes",
					map[string]string{"a.yaml": broken + policyYAML("shop", "allow", "DENY")},
					"shop/allow=DENY shop/deny=DENY ISM-SCH16 ISM-SRC01",
				},
				{
					"and again",
					map[string]string{"a.yaml": foreign + broken + allow},
					"shop/allow=ALLOW shop/deny=DENY ISM-SCH16 ISM-SRC01 ISM0203",
				},
				{
					"a template in its place",
					map[string]string{"a.yaml": "---\n{{- include \"deny\" . }}\n" + allow},
					"shop/allow=ALLOW shop/deny=DENY ISM-SRC01 ISM0203",
				},
				{"in a list that cannot be read", map[string]string{
					"a.yaml": "---\nkind: list\nitems:\n- " + strings.ReplaceAll(deny[4:], "\n", "\n  ") + "\n" + allow,
				}, "shop/allow=ALLOW shop/deny=DENY ISM-SCH10 ISM-SRC01"},
				{
					"not YAML",
					map[string]string{"a.yaml": unread + allow},
					"shop/allow=ALLOW shop/deny=DENY ISM-SCH10 ISM-SRC01",
				},
				{
					"nobody knows what it is",
					map[string]string{"a.yaml": untold + allow},
					"shop/allow=ALLOW shop/deny=DENY ISM-SCH10 ISM-SRC01",
				},
				{
					"two of which nobody knows",
					map[string]string{"a.yaml": untold + untold + allow},
					"shop/allow=ALLOW shop/deny=DENY ! shop/ ISM-SCH10 ISM-SCH10 ISM-SRC01",
				},
				{
					"one, for both",
					map[string]string{"a.yaml": untold},
					"shop/allow=ALLOW shop/deny=DENY ISM-SCH10 ISM-SRC01 ISM-SRC01",
				},
				{"taken out", map[string]string{"a.yaml": allow}, "shop/allow=ALLOW"},
				{
					"untold, and never good",
					map[string]string{"a.yaml": strings.Replace(untold, "shop", "pub", 1) + allow},
					"shop/allow=ALLOW ! pub/ ISM-SCH10",
				},
				{
					"written twice",
					map[string]string{"a.yaml": deny + allow + allow},
					"shop/allow=ALLOW shop/deny=DENY ISM-SCH21 ISM-SCH21 ISM-SRC01",
				},
				{
					"twice, and never good",
					map[string]string{"a.yaml": deny + deny + policyYAML("shop", "new", "DENY") + policyYAML("shop",
						"new", "DENY")},
					"shop/deny=DENY !AuthorizationPolicy shop/new ISM-SCH21 ISM-SCH21 ISM-SCH21 ISM-SCH21 ISM-SRC01",
				},
				{"moved to another file", map[string]string{"a.yaml": "# nothing\n", "b.yaml": deny}, "shop/deny=DENY"},
				{"broken there", map[string]string{"b.yaml": broken}, "shop/deny=DENY ISM-SCH16 ISM-SRC01"},
				{"gone", map[string]string{"b.yaml": ""}, ""},
				{
					"a new one is broken too",
					map[string]string{"a.yaml": deny + allow + strings.Replace(broken, "deny", "more", 1)},
					"shop/allow=ALLOW shop/deny=DENY !AuthorizationPolicy shop/more web ISM-SCH16",
				},
				{
					"back, and broken",
					map[string]string{"a.yaml": "# nothing\n", "b.yaml": broken},
					"!AuthorizationPolicy shop/deny web ISM-SCH16",
				},
			})
		})
	}
}

// TestTakenOutStaysOut: what was taken out of a file does not come back with a copy of it.
func TestTakenOutStaysOut(t *testing.T) {
	allow, untold := policyYAML("shop", "allow", "ALLOW"),
		"---\nkind AuthorizationPolicy\nmetadata: {namespace: shop}\n"
	broken := strings.Replace(policyYAML("shop", "more", "DENY"), "action", "actoin", 1)
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			steps(t, restart, []step{
				{"good", map[string]string{"a.yaml": allow}, "shop/allow=ALLOW"},
				{"taken out", map[string]string{"a.yaml": broken}, "!AuthorizationPolicy shop/more web ISM-SCH16"},
				{"nobody knows what it is", map[string]string{"a.yaml": untold}, "! shop/ " + map[bool]string{
					// for all that is known, it may be they
					true: "!AuthorizationPolicy shop/allow !AuthorizationPolicy shop/more ",
				}[restart] + "ISM-SCH10"},
			})
		})
	}
}

// fakeAges keep ages in memory, as the state file does.
type fakeAges struct {
	rows map[place]time.Time
	fail bool
	hang chan struct{} // until it is closed nothing is kept; nil: nobody waits
}

func (f *fakeAges) ConfigAges(context.Context) ([]state.ConfigAge, error) {
	var out []state.ConfigAge
	for p, seen := range f.rows {
		out = append(out, state.ConfigAge{Key: p.key, File: p.file, FirstSeen: seen})
	}
	slices.SortFunc(out, func(a, b state.ConfigAge) int { return a.FirstSeen.Compare(b.FirstSeen) })
	return out, nil
}

func (f *fakeAges) KeepConfigAges(_ context.Context, c state.AgeChange) (kept []state.ConfigAge, err error) {
	if f.hang != nil {
		<-f.hang
	}
	if f.fail {
		return nil, errors.New("the disk is full")
	}
	for _, a := range slices.Concat(c.New, c.Known) {
		if len(url.PathEscape(a.File)) > 2000 {
			return nil, errors.New("index row size exceeds btree maximum")
		}
	}
	if f.rows == nil {
		f.rows = map[place]time.Time{}
	}
	for _, a := range c.Gone {
		delete(f.rows, place{a.Key, a.File})
	}
	var youngest, first time.Time
	for _, seen := range f.rows {
		youngest = times.Later(youngest, seen)
	}
	for _, a := range c.New {
		if first.IsZero() || a.FirstSeen.Before(first) {
			first = a.FirstSeen
		}
	}
	late := max(0, youngest.Add(time.Microsecond).Sub(first))
	for i, a := range slices.Concat(c.New, c.Known) {
		if i < len(c.New) {
			a.FirstSeen = a.FirstSeen.Add(late)
		}
		p := place{a.Key, a.File}
		if _, there := f.rows[p]; !there {
			f.rows[p] = a.FirstSeen
		}
		a.FirstSeen = f.rows[p]
		kept = append(kept, a)
	}
	return kept, nil
}

// TestOldestStays: of two that write one object the older stays, whatever files are called and however often we start.
func TestOldestStays(t *testing.T) {
	one, two := policyYAML("shop", "p", "DENY"), policyYAML("shop", "p", "ALLOW")
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			steps(t, restart, []step{
				{"the first", map[string]string{"m.yaml": one}, "shop/p=DENY"},
				{"a second, in a file that sorts first", map[string]string{"a.yaml": two}, "shop/p=DENY ISM-SRC04"},
				{
					"the first one's file renamed",
					map[string]string{"m.yaml": "", "z.yaml": one},
					"shop/p=DENY ISM-SRC04",
				},
				{
					"the second one's file renamed",
					map[string]string{"a.yaml": "", "0.yaml": two},
					"shop/p=DENY ISM-SRC04",
				},
				{
					"the first moves into another file",
					map[string]string{"z.yaml": "# nothing\n", "y.yaml": policyYAML("shop", "q", "DENY") + one},
					"shop/p=DENY shop/q=DENY ISM-SRC04",
				},
				{
					"the first is changed",
					map[string]string{"y.yaml": strings.Replace(one, "app: web", "app: api", 1)},
					"shop/p=DENY ISM-SRC04",
				},
				{
					"the first is broken",
					map[string]string{"y.yaml": strings.Replace(one, "action", "actoin", 1)},
					"shop/p=DENY ISM-SRC04 ISM-SCH16 ISM-SRC01",
				},
				{"the first is gone", map[string]string{"y.yaml": ""}, "shop/p=ALLOW"},
				// within the grace: it is back
				{
					"another one comes",
					map[string]string{"00.yaml": policyYAML("shop", "p", "DENY")},
					"shop/p=DENY ISM-SRC04",
				},
			})
		})
	}
}

// TestAges: objects that come together have one age, whoever comes later is younger, also by a clock that was set back.
func TestAges(t *testing.T) {
	dir, kept := t.TempDir(), &fakeAges{}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var d *folder
	load := func(after time.Duration, restart bool) *snapshot.Config {
		t.Helper()
		now = now.Add(after)
		if d == nil || restart {
			a, err := openAges(t.Context(), kept, nil)
			if err != nil {
				t.Fatal(err)
			}
			d = newFolder(dir, schema.New().Validate, openCopies(dir, "", nil), a, true)
		}
		d.refreshAll(t.Context(), nil, now)
		return d.config
	}
	key := func(name string) snapshot.Key { return snapshot.Key{Kind: "Namespace", Name: name} }
	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("b", "c"))
	c := load(0, false)
	if !c.SameAge(key("b"), key("c")) || c.Older(key("b"), key("c")) >= 0 ||
		!c.Origin(key("b")).FirstSeen.Equal(now) {
		t.Errorf("%v and %v came together", c.Origin(key("b")).FirstSeen, c.Origin(key("c")).FirstSeen)
	}
	write(t, filepath.Join(dir, "a.yaml"), namespaceYAML("a"))
	if c = load(-time.Hour, false); c.Older(key("a"), key("c")) <= 0 || c.SameAge(key("a"), key("c")) {
		t.Error("one that came later is older, since the clock was set back")
	}
	c = load(0, true)
	if c.Older(key("a"), key("c")) <= 0 || !c.SameAge(key("b"), key("c")) {
		t.Error("a restart changed who is older")
	}
	t.Run("what is gone for long is forgotten", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		load(0, false)
		load(2*grace, false)
		load(0, false)
		if len(kept.rows) != 2 || len(d.ages.ghosts) != 0 {
			t.Errorf("%d rows and %d ghosts, want 2 and none", len(kept.rows), len(d.ages.ghosts))
		}
	})
	t.Run("what could not be written is written later", func(t *testing.T) {
		kept.fail = true
		d.ages.log = slog.New(slog.DiscardHandler)
		write(t, filepath.Join(dir, "late.yaml"), namespaceYAML("late"))
		if c := load(0, false); c.Origin(key("late")).FirstSeen.IsZero() {
			t.Error("it does not count")
		}
		kept.fail = false
		load(0, false)
		if len(kept.rows) != 3 {
			t.Errorf("%d rows, want 3", len(kept.rows))
		}
	})
}

// TestAgesOfTwoControlPlanes: folders that are read by two control planes, which see the files in another order, and of
// which one lacks a file for a while.
func TestAgesOfTwoControlPlanes(t *testing.T) {
	kept := &fakeAges{}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	deny, allow := policyYAML("shop", "p", "DENY"), policyYAML("shop", "p", "ALLOW")
	type plane struct {
		dir string
		d   *folder
	}
	begin := func() *plane {
		p := &plane{dir: t.TempDir()}
		a, err := openAges(t.Context(), kept, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.d = newFolder(p.dir, schema.New().Validate, openCopies(p.dir, "", nil), a, true)
		return p
	}
	a, b := begin(), begin()
	see := func(p *plane, name, text string) {
		t.Helper()
		if write(t, filepath.Join(p.dir, name), text); text == "" {
			if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(time.Second)
		p.d.refreshAll(t.Context(), nil, now)
	}
	key := snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "p"}
	both := func(what, want string) {
		t.Helper()
		for name, p := range map[string]*plane{"a": a, "b": b} {
			if got := policies(p.d.config); got != want {
				t.Errorf("%s: at %s it is %s, want %s", what, name, got, want)
			}
		}
		if x, y := a.d.config.Origin(key).FirstSeen, b.d.config.Origin(key).FirstSeen; !x.Equal(y) || x.IsZero() {
			t.Errorf("%s: it was first seen at %s and at %s", what, x, y)
		}
	}
	see(a, "one.yaml", deny)
	see(b, "two.yaml", allow)
	see(b, "one.yaml", deny)
	see(a, "two.yaml", allow)
	both("seen in another order", "shop/p=DENY ISM-SRC04")

	kept.fail = true // while nothing can be kept, each goes by what it has seen
	see(a, "one.yaml", "")
	see(b, "one.yaml", "")
	now = now.Add(time.Minute)
	see(a, "three.yaml", deny)
	kept.fail = false
	see(b, "four.yaml", deny)
	see(b, "three.yaml", deny)
	see(a, "four.yaml", deny)
	both("kept when it could be", "shop/p=ALLOW ISM-SRC04 ISM-SRC04")

	was := a.d.config.Origin(key).FirstSeen
	see(b, "two.yaml", "")
	now = now.Add(2 * grace)
	b.d.refreshAll(t.Context(), nil, now) // finds it gone
	b.d.refreshAll(t.Context(), nil, now)
	if _, known := kept.rows[place{key, "two.yaml"}]; known {
		t.Fatal("what is gone is kept")
	}
	all, _ := kept.ConfigAges(t.Context())
	a.d.reloadAges(t.Context(), all) // where it still is
	see(b, "two.yaml", allow)
	both("gone from one folder for a while", "shop/p=ALLOW ISM-SRC04 ISM-SRC04")
	if is := b.d.config.Origin(key).FirstSeen; !is.Equal(was) {
		t.Errorf("first seen at %s, and now at %s", was, is)
	}
}

// TestLongPathsHoldNothingUp: a file whose path is too long for its objects' ages to be kept is not read, and the ages
// of all others are kept.
func TestLongPathsHoldNothingUp(t *testing.T) {
	dir, kept := t.TempDir(), &fakeAges{}
	s := open(t, Config{Dir: dir, Ages: kept, Validate: schema.New().Validate})
	long := filepath.Join(dir, strings.Repeat("ä", 120), strings.Repeat("ä", 120), strings.Repeat("ä", 110))
	write(t, filepath.Join(long, "long.yaml"), policyYAML("shop", "long", "DENY"))
	write(t, filepath.Join(dir, "short.yaml"), policyYAML("shop", "short", "DENY"))
	c := s.Load(t.Context())
	if got := policies(c); got != "shop/short=DENY ISM-SRC02" {
		t.Errorf("got %s", got)
	}
	if len(kept.rows) != 1 {
		t.Errorf("%d ages are kept, want 1", len(kept.rows))
	}
	if text := c.Findings[0].String(); !strings.Contains(text, "its path inside the folder is longer than 2000 bytes") {
		t.Errorf("found %s", text)
	}
}

// TestPoliciesDoNotWaitForADatabase: while a database hangs, what is new is in force, and its age is kept later.
func TestPoliciesDoNotWaitForADatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, kept := t.TempDir(), &fakeAges{hang: make(chan struct{})}
		a, err := openAges(t.Context(), kept, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d := newFolder(dir, schema.New().Validate, openCopies(dir, "", nil), a, true)
		write(t, filepath.Join(dir, "deny.yaml"), policyYAML("shop", "deny", "DENY"))
		d.refreshAll(t.Context(), nil, time.Now().Add(time.Minute))
		if got := policies(d.config); got != "shop/deny=DENY" {
			t.Errorf("while it hangs: %s", got)
		}
		close(kept.hang)
		synctest.Wait()
		d.refreshAll(t.Context(), nil, time.Now().Add(time.Minute))
		if len(kept.rows) != 1 {
			t.Errorf("%d ages are kept, want 1", len(kept.rows))
		}
	})
}

// TestNobodyTakesTheAgeOfAnother: what is written anew, or renamed, while another object of its name stands does not
// become as old as one that was taken out before.
func TestNobodyTakesTheAgeOfAnother(t *testing.T) {
	dir, kept := t.TempDir(), &fakeAges{}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	d := newFolder(dir, schema.New().Validate, openCopies(dir, "", nil), offline(dir, nil).ages, true)
	d.ages.kept = kept
	step := func(what string, after time.Duration, files map[string]string, want string) {
		t.Helper()
		now = now.Add(after)
		for name, text := range files {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if text != "" {
				write(t, filepath.Join(dir, name), text)
			}
		}
		d.refreshAll(t.Context(), nil, now)
		if got := policies(d.config); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	deny, allow := policyYAML("shop", "p", "DENY"), policyYAML("shop", "p", "ALLOW")
	step("the owner's", 0, map[string]string{"a.yaml": deny}, "shop/p=DENY")
	step("copied to another file", time.Hour, map[string]string{"b.yaml": deny}, "shop/p=DENY ISM-SRC04")
	step("another's", time.Hour, map[string]string{"c.yaml": allow}, "shop/p=DENY ISM-SRC04 ISM-SRC04")
	step("the owner's first file goes", time.Hour, map[string]string{"a.yaml": ""}, "shop/p=DENY ISM-SRC04")
	step("the other's is renamed", 10*time.Second, map[string]string{"c.yaml": "", "z.yaml": allow},
		"shop/p=DENY ISM-SRC04")
	step("and a third comes", 10*time.Second, map[string]string{"y.yaml": allow}, "shop/p=DENY ISM-SRC04 ISM-SRC04")
	step("the owner's is renamed", time.Second, map[string]string{"b.yaml": "", "zz.yaml": deny},
		"shop/p=DENY ISM-SRC04 ISM-SRC04")
	step("and by a clock that was set back", -2*time.Hour, map[string]string{"zz.yaml": "", "0.yaml": deny},
		"shop/p=DENY ISM-SRC04 ISM-SRC04")
}

// TestTwoOfOneChange: of two that come in one change one is first by file name, and stays first when files are renamed.
func TestTwoOfOneChange(t *testing.T) {
	one, two := policyYAML("shop", "p", "DENY"), policyYAML("shop", "p", "ALLOW")
	steps(t, true, []step{
		{"both", map[string]string{"a.yaml": one, "b.yaml": two}, "shop/p=DENY ISM-SRC04"},
		{"renamed", map[string]string{"a.yaml": "", "c.yaml": one}, "shop/p=DENY ISM-SRC04"},
	})
}

// TestUnreadableFile: a file that cannot be read stays as it was, and where no copy tells how that was, what its
// policies selected, and the workloads that its entries declared, are closed.
func TestUnreadableFile(t *testing.T) {
	dir, copies, ages := t.TempDir(), filepath.Join(t.TempDir(), "kept"), &fakeAges{}
	path := filepath.Join(dir, "a.yaml")
	load := func(want string) {
		t.Helper()
		s := open(t, Config{Dir: dir, Copies: copies, Ages: ages, Validate: schema.New().Validate})
		if got := policies(s.Load(t.Context())); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	write(t, path, policyYAML("shop", "deny", "DENY")+namespaceYAML("one")+
		yamltest.Object("networking.istio.io/v1", "WorkloadEntry", "shop", "cart",
			"{address: 192.0.2.1, labels: {app: web}}"))
	load("shop/deny=DENY")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, path); err != nil { // a loop cannot be read, not even by root
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "other.yaml"), "# nothing\n")
	load("shop/deny=DENY ISM-SRC02 ISM-SRC01 ISM-SRC01 ISM-SRC01")
	if err := os.RemoveAll(copies); err != nil {
		t.Fatal(err)
	}
	load("!AuthorizationPolicy shop/deny !WorkloadEntry shop/cart ISM-SRC02")
	write(t, filepath.Join(dir, "b.yaml"), "# nothing\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	load("")
}

// TestPathTooLong: what lies at a path that no call takes is a finding.
func TestPathTooLong(t *testing.T) {
	dir := t.TempDir()
	was, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	defer os.Chdir(was)
	if err := os.Chdir(dir); err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 250)
	for range 18 {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chdir(name); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "a.yaml", namespaceYAML("one"))
	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("two"))
	c, err := LoadDir(dir, nil)
	if err != nil || describe(c) != "two ISM-SRC02" || !strings.Contains(c.Findings[0].Message, "file name too long") {
		t.Errorf("%q, %v: %v", describe(c), err, c.Findings)
	}
}

// TestCutOff: a file that is cut off anywhere loses nothing that was good in it, but what was taken out by whole
// documents.
func TestCutOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	whole := policyYAML("shop", "deny", "DENY") + policyYAML("shop", "other", "DENY")
	d := newFolder(dir, schema.New().Validate, openCopies(dir, "", nil), offline(dir, nil).ages, true)
	now := time.Now()
	put := func(text string) string {
		now = now.Add(time.Hour)
		write(t, path, text)
		if err := os.Chtimes(path, now.Add(-time.Minute), now.Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		d.refreshAll(t.Context(), nil, now)
		return policies(d.config)
	}
	for n := 1; n < len(whole); n++ {
		if got := put(whole); got != "shop/deny=DENY shop/other=DENY" {
			t.Fatalf("whole: %s", got)
		}
		got := put(whole[:n])
		// without rules: of nothing
		denied := strings.Contains(got, "shop/deny=DENY") || strings.Contains(got, "!") || got == "shop/deny=ALLOW"
		if !denied && strings.TrimSpace(whole[:n]) != "---" {
			t.Errorf("cut off after %d bytes (%q): %s", n, whole[max(0, n-20):n], got)
		}
	}
}
