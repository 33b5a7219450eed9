package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// content is everything that the tests compare.
type content struct {
	Blobs    []state.Blob // by name, "blob-0" first
	Tokens   []state.Token
	Nodes    []state.Node
	Registry *snapshot.Registry
	Peers    []state.Peer
	Certs    []state.Cert
}

func contentOf(t *testing.T, d *relational.DB) content {
	t.Helper()
	var c content
	var errs [6]error
	for i := 0; errs[0] == nil; i++ {
		var b state.Blob
		if b, errs[0] = d.Blob(t.Context(), fmt.Sprint("blob-", i)); errs[0] == nil {
			c.Blobs = append(c.Blobs, b)
		}
	}
	if errors.Is(errs[0], state.ErrNotFound) {
		errs[0] = nil
	}
	c.Tokens, errs[1] = d.Tokens(t.Context())
	c.Nodes, errs[2] = d.Nodes(t.Context())
	c.Registry, errs[3] = d.Registry(t.Context())
	c.Peers, errs[4] = d.Peers(t.Context())
	c.Certs, errs[5] = d.Certs(t.Context(), state.CertFilter{})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return c
}

// fill writes n rounds of everything.
func fill(t *testing.T, d *relational.DB, from, to int) {
	t.Helper()
	ctx := t.Context()
	for i := from; i < to; i++ {
		node := fmt.Sprintf("node-%03d", i)
		err := errors.Join(
			d.PutBlob(ctx, state.Blob{
				Name: fmt.Sprint("blob-", i), Cert: bytes.Repeat([]byte{byte(i)}, 600),
				Key: []byte("sealed"), Created: noon,
			}, nil),
			d.AddToken(ctx, state.Token{
				ID: fmt.Sprint("t-", i), Node: node, Role: snapshot.RoleNode, Created: noon,
				Expires: noon.Add(time.Hour),
			}),
			d.AttestNode(ctx, state.Node{
				Node:  snapshot.Node{Name: node, Role: snapshot.RoleNode},
				Grant: grant.Grant{Identities: []string{"default/*"}}, Attested: noon,
			}),
			d.RegisterNode(ctx, state.Registration{
				Node:      snapshot.Node{Name: node},
				Workloads: []snapshot.Workload{{Name: "w-" + node, Namespace: "default", ServiceAccount: "payments"}},
			},
				noon),
			d.SetPeerBundle(ctx, fmt.Sprint("peer-", i), []byte("roots"), 3, 0, noon),
			d.AddCert(ctx, state.Cert{
				Serial: fmt.Sprintf("%032x", i), SPIFFEID: "spiffe://cards.example/ns/a/sa/b",
				Node: node, Fingerprint: fmt.Sprintf("%064x", i), NotBefore: noon, NotAfter: noon.Add(time.Hour),
			}, ""),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// closedFile is a file with content, closed as it should be.
func closedFile(t *testing.T) (bytes []byte, want content) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	d, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, 0, 12)
	want = contentOf(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return read(t, path), want
}

// A file cut at any place, or with any byte changed, is named and left alone — or the change touched nothing that
// matters.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	whole, want := closedFile(t)
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	try := func(name string, file []byte) {
		path := filepath.Join(t.TempDir(), "state.db")
		write(t, path, file)
		d, err := sqlite.Open(t.Context(), path)
		if err == nil {
			if diff := cmp.Diff(want, contentOf(t, d), cmp.Comparer(sameAddr)); diff != "" {
				t.Errorf("%s: opened with other content:\n%s", name, diff)
			}
			if err := d.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return
		}
		found++
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
		if errors.Is(err, state.ErrDamaged) && !strings.Contains(err.Error(), "Restore it from a backup") {
			t.Errorf("%s: the error names no remedy: %v", name, err)
		}
		if !bytes.Equal(read(t, path), file) {
			t.Errorf("%s: the damaged file was changed", name)
		}
	}
	cuts := []int{1, 15, 16, 99, 100, 511, 4095, 4096, 8192, len(whole) / 2, len(whole) - 4096, len(whole) - 1}
	for _, n := range cuts {
		try(fmt.Sprintf("cut to %d bytes", n), whole[:n])
	}
	if found != len(cuts) {
		t.Errorf("%d of %d cuts were found", found, len(cuts))
	}
	found = 0
	const flips = 120
	for range flips {
		at, bit := random.IntN(len(whole)), random.IntN(8)
		file := bytes.Clone(whole)
		file[at] ^= 1 << bit
		try(fmt.Sprintf("bit %d of byte %d flipped", bit, at), file)
	}
	t.Logf("%d of %d flipped bits were found, the others touched nothing", found, flips)
	if found < flips/20 {
		t.Errorf("only %d of %d flipped bits were found", found, flips)
	}
	// SQLite itself does not look into a value.
	at := bytes.Index(whole, []byte("spiffe://cards.example/ns/a/sa/b"))
	for i := range len("spiffe://") {
		found = 0
		file := bytes.Clone(whole)
		file[at+i] ^= 1
		try(fmt.Sprintf("byte %d of a stored name", i), file)
		if found != 1 {
			t.Errorf("byte %d of a stored name changed unnoticed", i)
		}
	}
}

// crashed is a file as a crash leaves it: its last transactions only in the log.
func crashed(t *testing.T) (db, wal []byte, want content) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	d := open(t, path)
	fill(t, d, 0, 12)
	return read(t, path), read(t, path+"-wal"), contentOf(t, d)
}

func TestCrashLosesNothing(t *testing.T) {
	db, wal, want := crashed(t)
	path := filepath.Join(t.TempDir(), "state.db")
	write(t, path, db)
	write(t, path+"-wal", wal)
	if diff := cmp.Diff(want, contentOf(t, open(t, path)), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// SQLite itself takes a bad frame for the end of the log and forgets what follows.
func TestDamagedLogIsFound(t *testing.T) {
	db, wal, _ := crashed(t)
	for _, at := range []int{0, 5, 20, 30, 40, 60, 4000, len(wal) / 3, len(wal) / 2} {
		path := filepath.Join(t.TempDir(), "state.db")
		file := bytes.Clone(wal)
		file[at] ^= 0x10
		write(t, path, db)
		write(t, path+"-wal", file)
		_, err := sqlite.Open(t.Context(), path)
		if !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), path+"-wal is damaged") {
			t.Errorf("byte %d of the log changed: %v", at, err)
		}
		if !bytes.Equal(read(t, path+"-wal"), file) || !bytes.Equal(read(t, path), db) {
			t.Errorf("byte %d of the log changed: the files were written to", at)
		}
	}
}

func TestTornEndOfLogIsACrash(t *testing.T) {
	db, wal, _ := crashed(t)
	path := filepath.Join(t.TempDir(), "state.db")
	write(t, path, db)
	write(t, path+"-wal", wal[:len(wal)-100])
	got := contentOf(t, open(t, path))
	if len(got.Blobs) != 12 || len(got.Certs) != 11 {
		t.Errorf("%d blobs and %d certificates, want 12 and 11: all but the last transaction", len(got.Blobs),
			len(got.Certs))
	}
}

func TestSuspiciousFiles(t *testing.T) {
	whole, _ := closedFile(t)
	foreign := bytes.Clone(whole)
	copy(foreign[68:72], "GPKG")
	for _, test := range []struct {
		name  string
		files map[string][]byte
		want  string
	}{
		{"emptied", map[string][]byte{"state.db": {}}, "the file is empty"},
		{
			"text",
			map[string][]byte{"state.db": bytes.Repeat([]byte("kind: Mesh\n"), 100)},
			"the file is not a database",
		},
		{
			"another program's",
			map[string][]byte{"state.db": foreign},
			"does not bear Isthmus's mark (its application id is 0x47504b47)",
		},
		{"missing beside its log", map[string][]byte{"state.db-wal": {1}}, "the file is missing while"},
		{"zeroes", map[string][]byte{"state.db": make([]byte, 8192)}, "the file is not a database"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, b := range test.files {
				write(t, filepath.Join(dir, name), b)
			}
			_, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
			if !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want it to say %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "state.db")); test.files["state.db"] == nil &&
				!errors.Is(err, fs.ErrNotExist) {
				t.Error("a new file was begun")
			}
		})
	}
}

func TestOpenRefusals(t *testing.T) {
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "state.db"))
	for path, want := range map[string]string{
		filepath.Join(dir, "state.db"):         "another isthmus process uses it",
		filepath.Join(dir, "absent/state.db"):  "make it, owned by the user that runs isthmus",
		filepath.Join(dir, "state.db.lock/up"): "not a directory",
	} {
		if _, err := sqlite.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("open %s: %v, want it to say %q", path, err, want)
		}
	}
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFileIsForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#%20.db") // no name confuses the driver
	d := open(t, path)
	fill(t, d, 0, 1)
	for _, p := range []string{path, path + "-wal", path + ".lock"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", p, info.Mode().Perm())
		}
	}
}

func TestReopenKeepsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	write(t, path+".new", []byte("left by a crash during the very first start"))
	d, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, 0, 3)
	want := contentOf(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contentOf(t, open(t, path)), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
