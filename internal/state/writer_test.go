package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func opened(t *testing.T) *DB {
	t.Helper()
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// put is a deed of two statements.
func put(names ...string) deed {
	return deed{name: "put", done: make(chan error, 1), do: func(ctx context.Context, t tx) error {
		for _, n := range names {
			if _, err := t.exec(ctx, "put-blob", n, []byte("cert"), []byte("key"), stamp(noon)); err != nil {
				return err
			}
			if n == "refused" {
				return ErrRevoked
			}
		}
		return nil
	}}
}

func (d *DB) blobNames(t *testing.T) string {
	t.Helper()
	all, err := d.Blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range all {
		names = append(names, b.Name)
	}
	return strings.Join(names, " ")
}

// Deeds that share a transaction fail each alone, and then leave nothing.
func TestDeedsFailAlone(t *testing.T) {
	t.Parallel()
	d := opened(t)
	row, err := certRow(Cert{Serial: "01", Fingerprint: "02", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotBefore: noon, NotAfter: noon})
	if err != nil {
		t.Fatal(err)
	}
	add := deed{name: "add-cert", whole: true, done: make(chan error, 1), do: func(ctx context.Context, t tx) error {
		_, err := t.exec(ctx, "add-cert", row...)
		return err
	}}
	again := add
	again.done = make(chan error, 1)
	deeds := []deed{put("a", "b"), add, put("c", "refused"), again, put("d")}
	d.carryOut(deeds)
	for i, want := range []string{"", "", "revoked", "UNIQUE constraint", ""} {
		got := ""
		if err := <-deeds[i].done; err != nil {
			got = err.Error()
		}
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("deed %d: %q, want %q", i, got, want)
		}
	}
	if got := d.blobNames(t); got != "a b d" {
		t.Errorf("what was kept: %s", got)
	}
	if certs, err := d.Certs(t.Context(), CertFilter{}); err != nil || len(certs) != 1 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}

// When the disk is full, SQLite may undo all of a transaction: then nobody in it hears that it was done.
func TestSpoiltTransactionIsNobodys(t *testing.T) {
	t.Parallel()
	d := opened(t)
	limit := func(pages int) {
		t.Helper()
		if _, err := d.write.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	huge := deed{name: "huge", whole: true, done: make(chan error, 1), do: func(ctx context.Context, t tx) error {
		_, err := t.exec(ctx, "put-blob", "huge", make([]byte, 1<<20), []byte("key"), stamp(noon))
		return err
	}}
	limit(100)
	deeds := []deed{put("a", "b"), huge, put("c")}
	d.carryOut(deeds)
	for i, one := range deeds {
		if err := <-one.done; err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("deed %d: %v, want that the disk is full", i, err)
		}
	}
	if got := d.blobNames(t); got != "" {
		t.Errorf("what was kept although nobody heard so: %s", got)
	}
	limit(10_000)
	if err := d.PutBlob(t.Context(), Blob{Name: "later", Created: noon}); err != nil {
		t.Errorf("after there was room again: %v", err)
	}
	if got := d.blobNames(t); got != "later" {
		t.Errorf("then: %s", got)
	}
}

// Who is answered finds what they wrote in the files as they are at that moment, whatever others write beside them.
func TestAnsweredWhenWritten(t *testing.T) {
	t.Parallel()
	d := opened(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprintf("n%02d", i)
			err := d.AttestNode(t.Context(), Node{Node: snapshot.Node{Name: name, Role: snapshot.RoleNode}, Attested: noon})
			// The log first read is what a crash now would leave; the file itself changes only when the log is folded into it.
			log, err2 := os.ReadFile(d.path + "-wal")
			file, err3 := os.ReadFile(d.path)
			copied := filepath.Join(dir, name+".db")
			if err := errors.Join(err, err2, err3, os.WriteFile(copied+"-wal", log, 0o600), os.WriteFile(copied, file, 0o600)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		c, err := Open(t.Context(), filepath.Join(dir, name+".db"))
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

// Who gives up before being heard has changed nothing; who asks a closed file hears so.
func TestNotAsked(t *testing.T) {
	t.Parallel()
	d := opened(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.PutBlob(over, Blob{Name: "a", Created: noon}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	if got := d.blobNames(t); got != "" {
		t.Errorf("it wrote %s", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.PutBlob(t.Context(), Blob{Name: "a", Created: noon}); !errors.Is(err, errClosed) {
		t.Errorf("a closed file: %v", err)
	}
}
