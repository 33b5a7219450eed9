package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
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

func start(t *testing.T, dir string) *Source {
	t.Helper()
	s := New(Config{Dir: dir, Validate: schema.New().Validate, Poll: 5 * time.Second})
	s.Load()
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
	for _, n := range c.Namespaces {
		words = append(words, n.Name)
	}
	for _, f := range c.Findings {
		words = append(words, f.Code)
	}
	return strings.Join(words, " ")
}

// await waits until the source's configuration is as described.
func await(t *testing.T, s *Source, want string) *snapshot.Config {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) {
		if c := s.Current(); describe(c) == want {
			return c
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("configuration is %q, want %q\n%v", describe(s.Current()), want, s.Current().Findings)
	return nil
}

func TestChangesOfFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "sub", "deep", "b.yml")
	write(t, a, namespaceYAML("one", "two"))
	s := start(t, dir)
	first := await(t, s, "one two")

	write(t, b, namespaceYAML("three"))
	second := await(t, s, "one three two")
	if second.Namespaces[0] != first.Namespaces[0] || second.Namespaces[2] != first.Namespaces[1] {
		t.Error("unchanged files gave new objects")
	}

	write(t, a, namespaceYAML("zero", "one"))
	third := await(t, s, "one three zero")
	if third.Namespaces[0] != first.Namespaces[0] {
		t.Error("an unchanged document of a changed file gave a new object")
	}
	if o := third.Origins[snapshot.Key{Kind: "Namespace", Name: "one"}]; o.LineOf("metadata.name") != 10 || o.File != a {
		t.Errorf("origin of one = %s:%d, want %s:10", o.File, o.LineOf("metadata.name"), a)
	}

	write(t, a, namespaceYAML("zero")+"---\nkind: [\n")
	broken := await(t, s, "one three zero ISM-SCH10 ISM-SRC01")
	if broken.Namespaces[0] != first.Namespaces[0] {
		t.Error("a broken file changed its objects")
	}

	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	await(t, s, "one zero ISM-SCH10 ISM-SRC01")
	write(t, a, namespaceYAML("zero"))
	await(t, s, "zero")
}
