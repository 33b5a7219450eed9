package relational_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type change = func(ctx context.Context, exec func(name string, args ...any) error) error

// opened is a store in a new file, and its engine.
func opened(t *testing.T) (*relational.DB, relational.Engine) {
	t.Helper()
	e, err := sqlite.Engine(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := relational.New(t.Context(), e, &relational.Watchers{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, e
}

// put is a change of a statement for each blob. It refuses the one called "refused", once it is written.
func put(names ...string) change {
	return func(ctx context.Context, exec func(string, ...any) error) error {
		for _, n := range names {
			if err := exec("put-blob", n, []byte("cert"), []byte("key"), noon.UnixMicro()); err != nil {
				return err
			}
			if n == "refused" {
				return state.ErrRevoked
			}
		}
		return nil
	}
}

// kept are those of some blobs that there are.
func kept(t *testing.T, d *relational.DB, names ...string) string {
	t.Helper()
	names = slices.DeleteFunc(names, func(n string) bool {
		_, err := d.Blob(t.Context(), n)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			t.Fatal(err)
		}
		return err != nil
	})
	return strings.Join(names, " ")
}

func TestWritesFailAlone(t *testing.T) {
	t.Parallel()
	d, _ := opened(t)
	add := func(ctx context.Context, exec func(string, ...any) error) error {
		return exec("add-cert", []byte{1}, "spiffe://cards.example/ns/a/sa/b", "", []byte{2}, noon.UnixMicro(),
			noon.UnixMicro(), []byte{}, "")
	}
	errs := d.Together(put("a", "b"), add, put("c", "refused"), add, put("d"))
	for i, want := range []string{"", "", "revoked", "UNIQUE constraint", ""} {
		got := ""
		if errs[i] != nil {
			got = errs[i].Error()
		}
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("change %d: %q, want %q", i, got, want)
		}
	}
	if got := kept(t, d, "a", "b", "c", "refused", "d"); got != "a b d" {
		t.Errorf("what was kept: %s", got)
	}
	if certs, err := d.Certs(t.Context(), state.CertFilter{}); err != nil || len(certs) != 1 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}

// Nobody hears of what was refused or undone.
func TestWatchersHearWhatWasWritten(t *testing.T) {
	t.Parallel()
	d, _ := opened(t)
	news := d.Watch(t.Context())
	suspend := func(peer string, err error) change {
		return func(ctx context.Context, exec func(string, ...any) error) error {
			return errors.Join(exec("set-suspended", peer, 1), err)
		}
	}
	d.Together(suspend("a", nil), suspend("b", state.ErrRevoked), suspend("c", nil), suspend("a", nil))
	want := []state.Change{{Topic: state.Peers, Key: "a", Here: true}, {Topic: state.Peers, Key: "c", Here: true}}
	if got := <-news; !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
}

// When the disk is full, SQLite may undo all of a transaction: then nobody in it hears that it was done.
func TestSpoiltTransactionIsNobodys(t *testing.T) {
	t.Parallel()
	d, e := opened(t)
	_, pool := e.Pools()
	limit := func(pages int) {
		t.Helper()
		if _, err := pool.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	huge := func(ctx context.Context, exec func(string, ...any) error) error {
		return exec("put-blob", "huge", make([]byte, 1<<20), []byte("key"), noon.UnixMicro())
	}
	limit(100)
	for i, err := range d.Together(put("a", "b"), huge, put("c")) {
		if err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("change %d: %v, want that the disk is full", i, err)
		}
	}
	if got := kept(t, d, "a", "b", "c", "huge"); got != "" {
		t.Errorf("what was kept although nobody heard so: %s", got)
	}
	limit(10_000)
	if err := d.PutBlob(t.Context(), state.Blob{Name: "later", Created: noon}, nil); err != nil {
		t.Errorf("after there was room again: %v", err)
	}
	if got := kept(t, d, "a", "later"); got != "later" {
		t.Errorf("then: %s", got)
	}
}

// Who is answered finds what they wrote in the files as they are at that moment, whatever others write beside them.
func TestAnsweredWhenWritten(t *testing.T) {
	t.Parallel()
	d, _ := opened(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprintf("n%02d", i)
			err := d.AttestNode(t.Context(),
				state.Node{Node: snapshot.Node{Name: name, Role: snapshot.RoleNode}, Attested: noon})
			// The log first: it is what a crash now would leave; the file changes only when the log is folded into it.
			log, err2 := os.ReadFile(d.Place() + "-wal")
			file, err3 := os.ReadFile(d.Place())
			copied := filepath.Join(dir, name+".db")
			if err := errors.Join(err, err2, err3, os.WriteFile(copied+"-wal", log, 0o600),
				os.WriteFile(copied, file, 0o600)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		c, err := sqlite.Open(t.Context(), filepath.Join(dir, name+".db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Node(t.Context(), name); err != nil {
			t.Errorf("%s was answered, and is not in the files: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Who gives up before being heard has changed nothing; who asks a closed store hears so.
func TestNotAsked(t *testing.T) {
	t.Parallel()
	d, _ := opened(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.PutBlob(over, state.Blob{Name: "a", Created: noon}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	if got := kept(t, d, "a"); got != "" {
		t.Errorf("it wrote %s", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.PutBlob(t.Context(), state.Blob{Name: "a", Created: noon}, nil); err == nil ||
		!strings.Contains(err.Error(), "it is closed") {
		t.Errorf("a closed store: %v", err)
	}
}
