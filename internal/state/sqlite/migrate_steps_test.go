package sqlite

import (
	"path/filepath"
	"testing"
	"testing/fstest"
)

// A file that an earlier version wrote keeps its rows, and later opens as if it had been written by this one.
func TestEarlierVersionIsBroughtUpToDate(t *testing.T) {
	step := func(sql string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql)} }
	first := fstest.MapFS{
		"0001_begin.sql": step("CREATE TABLE schema_sum (one INTEGER PRIMARY KEY, sum INTEGER NOT NULL);\nCREATE TABLE things (name TEXT);"),
	}
	second := fstest.MapFS{
		"0001_begin.sql": first["0001_begin.sql"],
		"0002_more.sql":  step("ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7;"),
	}
	p, err := pool(filepath.Join(t.TempDir(), "state.db"), 1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx := t.Context()
	sum := func() (n int64) {
		t.Helper()
		if err := p.QueryRowContext(ctx, "SELECT sum FROM schema_sum").Scan(&n); err != nil || n == 0 {
			t.Fatalf("the schema's checksum is %d, %v", n, err)
		}
		return n
	}
	by := func(dir fstest.MapFS) error {
		g, err := migrationsOf(p, dir)
		if err != nil {
			t.Fatal(err)
		}
		return migrateBy(ctx, p, g)
	}
	if err := by(first); err != nil {
		t.Fatal(err)
	}
	before := sum()
	if _, err := p.ExecContext(ctx, "INSERT INTO things (name) VALUES ('a')"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := by(second); err != nil {
			t.Fatal(err)
		}
	}
	var name string
	var size int
	if err := p.QueryRowContext(ctx, "SELECT name, size FROM things").Scan(&name, &size); err != nil || name != "a" ||
		size != 7 {
		t.Errorf("read %q, %d, %v", name, size, err)
	}
	if sum() == before {
		t.Error("the checksum is of the old schema")
	}
	if err := by(first); err == nil {
		t.Error("an older program opened a newer file")
	}
}
