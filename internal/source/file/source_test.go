package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

func namespaceYAML(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", n)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config) *Source {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, dir string) *Source {
	t.Helper()
	s := open(t, Config{Dir: dir, Validate: schema.New().Validate, Poll: 5 * time.Second})
	s.Load(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// describe is a configuration in words: its namespaces, then the codes of its findings.
func describe(c *snapshot.Config) string {
	var words []string
	for _, n := range snapshot.Of[*corev1.Namespace](c) {
		words = append(words, n.Name)
	}
	for _, f := range c.Findings {
		words = append(words, string(f.Code))
	}
	return strings.Join(words, " ")
}

// await waits until the source's configuration is as described.
func await(t *testing.T, s *Source, want string) *snapshot.Config {
	t.Helper()
	var c *snapshot.Config
	waittest.Within(t, waittest.Patience, "the configuration", func() error {
		if c = s.Current(); describe(c) != want {
			return fmt.Errorf("it is %q, want %q\n%v", describe(c), want, c.Findings)
		}
		return nil
	})
	return c
}

func TestChangesOfFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "sub", "deep", "b.yml")
	write(t, a, namespaceYAML("one", "two"))
	s := start(t, dir)
	first := await(t, s, "one two")

	write(t, b, namespaceYAML("three"))
	second := await(t, s, "one three two")
	if snapshot.Of[*corev1.Namespace](second)[0] != snapshot.Of[*corev1.Namespace](first)[0] ||
		snapshot.Of[*corev1.Namespace](second)[2] != snapshot.Of[*corev1.Namespace](first)[1] {
		t.Error("unchanged files gave new objects")
	}

	write(t, a, namespaceYAML("zero", "one"))
	third := await(t, s, "one three zero")
	if snapshot.Of[*corev1.Namespace](third)[0] != snapshot.Of[*corev1.Namespace](first)[0] {
		t.Error("an unchanged document of a changed file gave a new object")
	}
	if o := third.Origin(snapshot.Key{Kind: "Namespace", Name: "one"}); o.LineOf("metadata.name") != 10 || o.File != a {
		t.Errorf("origin of one = %s:%d, want %s:10", o.File, o.LineOf("metadata.name"), a)
	}

	write(t, a, namespaceYAML("zero")+"---\nkind: [\n")
	broken := await(t, s, "one three zero ISM-SCH10 ISM-SRC01")
	if snapshot.Of[*corev1.Namespace](broken)[0] != snapshot.Of[*corev1.Namespace](first)[0] {
		t.Error("a broken document changed the object that it may be")
	}

	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	await(t, s, "one zero ISM-SCH10 ISM-SRC01")
	write(t, a, namespaceYAML("zero"))
	await(t, s, "zero")
}

func TestAtomicReplacement(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, namespaceYAML("one"))
	s := start(t, dir)
	await(t, s, "one")
	// As vim and most tools do: write aside, rename over.
	write(t, path+".tmp", namespaceYAML("two"))
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
	await(t, s, "two")
	// As vim does with backups: move away, write anew.
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	write(t, path, namespaceYAML("three"))
	await(t, s, "three")
}

// TestFileInMotion: a file that is emptied and then filled never loses its objects in between; one that stays empty
// does. One that is written to without a pause is taken as it is after a while.
func TestFileInMotion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, namespaceYAML("one"))
	now := time.Now().Add(time.Hour)
	d := offline(dir, nil)
	d.refreshAll(t.Context(), nil, now)
	step := func(after time.Duration, wantAgain bool, want string) {
		t.Helper()
		now = now.Add(after)
		again := d.refresh(t.Context(), []string{path}, nil, now)
		if again.files[path] != wantAgain || again.all || describe(d.config) != want {
			t.Fatalf("configuration %q, look again %v; want %q, %v", describe(d.config), again, want, wantAgain)
		}
	}
	write(t, path, "")
	step(0, true, "one")
	step(90*time.Millisecond, true, "one")
	write(t, path, namespaceYAML("one", "two"))
	step(20*time.Millisecond, false, "one two")
	write(t, path, "")
	step(0, true, "one two")
	step(100*time.Millisecond, false, "")

	write(t, path, namespaceYAML("one"))
	step(0, false, "one")
	write(t, path, namespaceYAML("one", "two"))
	touch := func() {
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	step(0, true, "one")
	now = now.Add(999 * time.Millisecond)
	touch()
	step(0, true, "one")
	now = now.Add(time.Millisecond)
	touch()
	step(0, false, "one two")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := d.refresh(t.Context(), []string{path}, nil, now)
	if !again.all || len(again.files) > 0 || describe(d.config) != "one two" {
		t.Errorf("not there: configuration %q, look again %+v", describe(d.config), again)
	}
}

// TestConfigMap swaps "..data" as the kubelet does.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..1", "a.yaml"), namespaceYAML("one"))
	write(t, filepath.Join(dir, "..1", "sub", "b.yaml"), namespaceYAML("two"))
	for link, target := range map[string]string{"..data": "..1", "a.yaml": "..data/a.yaml", "sub": "..data/sub"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, dir)
	await(t, s, "one two")
	write(t, filepath.Join(dir, "..2", "a.yaml"), namespaceYAML("three"))
	write(t, filepath.Join(dir, "..2", "sub", "b.yaml"), namespaceYAML("four"))
	if err := os.Symlink("..2", filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	await(t, s, "four three")
	// The folder behind the link is watched in turn.
	write(t, filepath.Join(dir, "..2", "sub", "b.yaml"), namespaceYAML("five"))
	await(t, s, "five three")
}

func TestFolderComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	if _, err := LoadDir(dir, nil); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("LoadDir of nothing: %v", err)
	}
	s := start(t, dir)
	await(t, s, "ISM-SRC02")
	write(t, filepath.Join(dir, "a.yaml"), namespaceYAML("one"))
	await(t, s, "one")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	await(t, s, "one ISM-SRC03")
	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("two"))
	await(t, s, "two")
	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("three"))
	await(t, s, "three")
	// Another folder in its place.
	write(t, filepath.Join(dir+".new", "c.yaml"), namespaceYAML("four"))
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".new", dir); err != nil {
		t.Fatal(err)
	}
	await(t, s, "four")
	write(t, filepath.Join(dir, "c.yaml"), namespaceYAML("five"))
	await(t, s, "five")
	// Emptied: kept, until a file says that nothing is meant.
	if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	await(t, s, "five ISM-SRC03")
	write(t, filepath.Join(dir, "none.yaml"), "# nothing\n")
	await(t, s, "")
}

func TestTwoFilesOneObject(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, b, namespaceYAML("one"))
	s := start(t, dir)
	first := await(t, s, "one")
	write(t, a, namespaceYAML("one", "two"))
	second := await(t, s, "one two ISM-SRC04")
	if snapshot.Of[*corev1.Namespace](second)[0] != snapshot.Of[*corev1.Namespace](first)[0] {
		t.Error("a later file took over the object of an earlier one")
	}
	f := second.Findings[0]
	if f.File != a || f.Line != 5 || !strings.Contains(f.Message, b+":2") || f.Object.String() != "Namespace one" {
		t.Errorf("the finding names not both files: %s", f)
	}
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	third := await(t, s, "one two")
	if third.Origin(snapshot.Key{Kind: "Namespace", Name: "one"}).File != a {
		t.Error("the object that waited did not take its place")
	}
}

func TestTwoMeshes(t *testing.T) {
	dir := t.TempDir()
	mesh := func(name string) string {
		return "apiVersion: isthmus.dev/v1alpha1\nkind: Mesh\nmetadata: {name: " + name + "}\nspec: {trustDomain: " +
			name + ".example}\n---\n"
	}
	path := filepath.Join(dir, "a.yaml")
	write(t, path, mesh("one"))
	s := start(t, dir)
	await(t, s, "")
	write(t, filepath.Join(dir, "0.yaml"), mesh("two"))
	c := await(t, s, "ISM-SRC05")
	if c.Mesh().Name != "one" || c.Objects.Len() != 1 || !strings.Contains(c.Findings[0].Message, path+":1") {
		t.Errorf("mesh %s, %d origins, %v", c.Mesh().Name, c.Objects.Len(), c.Findings)
	}
	write(t, path, mesh("one")+mesh("three"))
	await(t, s, "ISM-SRC05 ISM-SRC05")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if c := await(t, s, ""); c.Mesh().Name != "two" || c.Objects.Len() != 1 {
		t.Errorf("mesh %s, origins %v", c.Mesh().Name, c.Objects)
	}
}

// TestBrokenAtFirst: an object that was never good costs itself alone, and a file that cannot be read is named.
func TestBrokenAtFirst(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), namespaceYAML("one", "UPPER"))
	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("two"))
	if err := os.Symlink("nowhere", filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	c, err := LoadDir(dir, nil)
	if err != nil || describe(c) != "one two ISM-SCH15 ISM-SRC02" {
		t.Errorf("%q, %v", describe(c), err)
	}
	if f := c.Findings[0]; f.Line != 10 || f.Field != "metadata.name" || f.File != filepath.Join(dir, "a.yaml") {
		t.Errorf("finding %s", f)
	}
}

// TestChangesLandTogether: changes of several files within the quiet time are one configuration.
func TestChangesLandTogether(t *testing.T) {
	dir := t.TempDir()
	for n := range 50 {
		write(t, filepath.Join(dir, fmt.Sprintf("f%d.yaml", n)), namespaceYAML(fmt.Sprintf("a%02d", n)))
	}
	s := open(t, Config{Dir: dir, Quiet: 300 * time.Millisecond, Longest: 5 * time.Second})
	s.Load(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	write(t, filepath.Join(dir, "f0.yaml"), namespaceYAML("begun"))
	<-s.Updates() // it watches
	for n := range 50 {
		write(t, filepath.Join(dir, fmt.Sprintf("f%d.yaml", n)), namespaceYAML(fmt.Sprintf("b%02d", n)))
	}
	c := <-s.Updates()
	if len(snapshot.Of[*corev1.Namespace](c)) != 50 || snapshot.Of[*corev1.Namespace](c)[0].Name != "b00" ||
		snapshot.Of[*corev1.Namespace](c)[49].Name != "b49" {
		t.Errorf("the first update holds %q", describe(c))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
