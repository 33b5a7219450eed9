package postgres_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/waittest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// patience is how long anything may take that must happen.
const patience = 30 * time.Second

func event(object string) state.Event {
	return state.Event{
		Time: noon, Actor: "administrator alice", Action: "token create", Object: object,
		Outcome: state.OK,
	}
}

// recorded are the objects of all events.
func recorded(t *testing.T, d state.Store) (objects []string) {
	t.Helper()
	all, err := d.Events(t.Context(), state.EventFilter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		objects = append(objects, e.Object)
	}
	return objects
}

// A bit that flips on the server's disk is found when the state is opened, and the row that it is in is named.
func TestDamagedRowIsNamed(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	cfg := server.Database(t)
	d, err := postgres.Open(t.Context(), cfg)
	must(t, err)
	for i := range 3 {
		must(t, d.PutBlob(t.Context(), state.Blob{
			Name: fmt.Sprint("blob-", i),
			Cert: bytes.Repeat([]byte{byte('A' + i)}, 100), Created: noon,
		}, nil))
	}
	must(t, d.Close())
	server.Admin(t, cfg.Database, "CHECKPOINT")
	must(t, server.Kill())
	flip(t, filepath.Join(server.Dir(), "data/base"), bytes.Repeat([]byte{'B'}, 100))
	must(t, server.Launch())
	_, err = postgres.Open(t.Context(), cfg)
	if !errors.Is(err, state.ErrDamaged) ||
		!strings.Contains(err.Error(), "rows of table blobs are not as they were written: blob-1.") &&
			!strings.Contains(err.Error(), "SQLSTATE XX001") { // by a server that has checksums of its own
		t.Errorf("got %v", err)
	}
}

// flip changes a bit of each place below a folder that holds some bytes.
func flip(t *testing.T, dir string, what []byte) {
	t.Helper()
	flipped := 0
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(b, what)
		if at < 0 {
			return nil
		}
		flipped++
		b[at+50] ^= 1
		return os.WriteFile(path, b, info.Mode())
	}))
	if flipped == 0 {
		t.Fatal("the row is in no file")
	}
}

// What is changed behind the control plane's back is found too.
func TestEventsCannotBeUnwritten(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	for _, statement := range []string{
		"DELETE FROM events WHERE seq = 2", "DELETE FROM events WHERE seq = 4", "TRUNCATE events",
		"UPDATE events SET actor = 'administrator bob' WHERE seq = 3",
	} {
		cfg := server.Database(t)
		d, err := postgres.Open(t.Context(), cfg)
		must(t, err)
		for i := range 4 {
			must(t, d.Record(t.Context(), event(fmt.Sprint("node n", i))))
		}
		must(t, d.Close())
		if err := owner(t, cfg, statement); err == nil || !strings.Contains(err.Error(), "an event is") {
			t.Errorf("%s: %v", statement, err)
		}
		must(t, owner(t, cfg, "ALTER TABLE events DISABLE TRIGGER USER; "+statement+
			"; ALTER TABLE events ENABLE TRIGGER USER"))
		if _, err := postgres.Open(t.Context(), cfg); !errors.Is(err, state.ErrDamaged) ||
			!strings.Contains(err.Error(), "events are missing") {
			t.Errorf("%s, opened: %v", statement, err)
		}
	}
}

// owner runs a statement as the control plane's own database user.
func owner(t *testing.T, cfg postgres.Config, statement string) error {
	t.Helper()
	secret, err := os.ReadFile(cfg.PasswordFile)
	must(t, err)
	c, err := pgx.ParseConfig("host=" + cfg.Addresses[0] + " port=5432 dbname=" + cfg.Database + " user=" + cfg.User +
		" sslmode=disable")
	must(t, err)
	c.Password = strings.TrimSpace(string(secret))
	conn, err := pgx.ConnectConfig(t.Context(), c)
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), statement)
	return err
}

// The server is killed while many write: what was acknowledged is there, nothing is there twice, and those who waited
// are served when it is back.
func TestKilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	d := open(t, server.Database(t))
	var acknowledged sync.Map
	var count atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				object := fmt.Sprintf("node %d-%d", w, i)
				if err := d.Record(t.Context(), event(object)); err != nil {
					t.Error(err)
					return
				}
				acknowledged.Store(object, true)
				count.Add(1)
			}
		})
	}
	waitFor(t, "writes", func() bool { return count.Load() > 100 })
	must(t, server.Kill())
	must(t, server.Launch())
	before := count.Load()
	waitFor(t, "writes after the crash", func() bool { return count.Load() > before+100 })
	cancel()
	all.Wait()
	there := map[string]int{}
	for _, object := range recorded(t, d) {
		there[object]++
	}
	acknowledged.Range(func(object, _ any) bool {
		if there[object.(string)] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", object, there[object.(string)])
		}
		return true
	})
	must(t, d.Check(t.Context()))
}

// A process that is killed while it writes leaves what it acknowledged, and keeps nobody from writing.
func TestKilledProcessLosesNothing(t *testing.T) {
	if place := os.Getenv("ISTHMUS_TEST_WRITER"); place != "" {
		writeForever(place)
	}
	t.Parallel()
	cfg := pgtest.Shared(t).Database(t)
	d := open(t, cfg)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledProcessLosesNothing$")
	cmd.Env = append(os.Environ(), "ISTHMUS_TEST_WRITER="+strings.Join([]string{
		cfg.Addresses[0], cfg.Database,
		cfg.User, cfg.PasswordFile,
	}, "|"))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said = append(said, lines.Text()); len(said) == 50 {
			must(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait() // killed
	if len(said) < 50 {
		t.Fatalf("the writer said only %q", said)
	}
	must(t, d.Record(t.Context(), event("after it")))
	there := map[string]bool{}
	for _, object := range recorded(t, d) {
		there[object] = true
	}
	for _, object := range said {
		if !there[object] {
			t.Errorf("%s was acknowledged and is not there", object)
		}
	}
}

// writeForever writes events from several goroutines and says which are acknowledged.
func writeForever(place string) {
	p := strings.Split(place, "|")
	d, err := postgres.Open(context.Background(),
		postgres.Config{Addresses: p[:1], Database: p[1], User: p[2], PasswordFile: p[3]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				object := fmt.Sprintf("node %d-%d", w, i)
				if err := d.Record(context.Background(), event(object)); err != nil {
					os.Exit(1)
				}
				fmt.Println(object)
			}
		}()
	}
	select {}
}

// The connection is lost as a transaction ends, before or after the server has heard so: what was asked for happens
// once.
func TestConnectionLostAtCommit(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]bool{"before the server hears": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			cfg := pgtest.Shared(t).Database(t)
			w := pgtest.NewWire(t, &cfg)
			d := open(t, cfg)
			w.CutAtCommit(heard)
			seq, err := d.BeginEvent(t.Context(), event("node n1"))
			if err != nil || seq != 1 {
				t.Errorf("event %d, %v", seq, err)
			}
			if !w.Cut() {
				t.Error("no connection was lost")
			}
			if got := recorded(t, d); len(got) != 1 {
				t.Errorf("recorded %q", got)
			}
		})
	}
}

// A server that hangs, or a network that swallows what is sent, ends no connection. What is asked meanwhile fails after
// a while, and what is asked on a new connection is done.
func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	cfg := pgtest.Shared(t).Database(t)
	w := pgtest.NewWire(t, &cfg)
	d := open(t, cfg)
	must(t, d.Record(t.Context(), event("node before")))
	if got := recorded(t, d); len(got) != 1 {
		t.Fatalf("recorded %q", got)
	}
	w.Silence()
	ended := make(chan error, 2)
	go func() { ended <- d.Record(t.Context(), event("node meanwhile")) }()
	go func() {
		_, err := d.Peers(t.Context())
		ended <- err
	}()
	for range 2 {
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(patience):
			t.Fatal("still waiting for a server that says nothing")
		}
	}
	must(t, d.Record(t.Context(), event("node after")))
}

// While the database is away changes fail, the first after ten seconds, and who comes later does not wait as long
// again.
func TestDatabaseThatIsAwayIsGivenUpOnce(t *testing.T) {
	t.Parallel()
	cfg := pgtest.Shared(t).Database(t)
	w := pgtest.NewWire(t, &cfg)
	d := open(t, cfg)
	w.Sever()
	took := func(object string) time.Duration {
		t.Helper()
		begun := time.Now()
		if err := d.Record(t.Context(), event(object)); err == nil {
			t.Errorf("%s was written", object)
		}
		return time.Since(begun)
	}
	first := took("node first")
	for range 3 {
		if later := took("node later"); later > first/2 {
			t.Errorf("the first change failed after %s, a later one after %s", first, later)
		}
	}
	w.Mend()
	must(t, d.Record(t.Context(), event("node after")))
	if got := recorded(t, d); len(got) != 1 || got[0] != "node after" {
		t.Errorf("recorded %q", got)
	}
}

// A transaction that has waited for its turn sees what was written meanwhile, whatever isolation the database is set
// to: a token that was cancelled lets nobody in.
func TestTransactionsSeeWhatTheyWaitedFor(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	cfg := server.Database(t)
	server.Admin(t, cfg.Database, "ALTER DATABASE "+cfg.Database+
		" SET default_transaction_isolation = 'repeatable read'")
	d := open(t, cfg)
	must(t, d.AddToken(t.Context(), state.Token{
		ID: "g1", Node: "n1", Role: "node", Created: noon,
		Expires: noon.Add(time.Hour),
	}))
	conn := server.Connect(t, cfg.Database)
	run := func(statement string, args ...any) {
		t.Helper()
		_, err := conn.Exec(t.Context(), statement, args...)
		must(t, err)
	}
	run("BEGIN ISOLATION LEVEL READ COMMITTED")
	run("SELECT pg_advisory_xact_lock($1)", 0x49535448)
	attested := make(chan error, 1)
	go func() {
		attested <- d.AttestNode(context.Background(), state.Node{
			Node: snapshot.Node{Name: "n1", Role: snapshot.RoleNode}, Generation: "g1", Attested: noon,
		})
	}()
	waitFor(t, "it waits for its turn", func() bool {
		var n int
		must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "+
			"AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&n))
		return n == 1
	})
	run("UPDATE tokens SET cancelled = 1 WHERE id = 'g1'")
	run("COMMIT")
	if err := <-attested; !errors.Is(err, state.ErrRevoked) {
		t.Errorf("got %v", err)
	}
}

// What one change says that is too much for the database keeps no other from being written with it.
func TestTooLongForAnIndex(t *testing.T) {
	t.Parallel()
	d := open(t, pgtest.Shared(t).Database(t))
	var long strings.Builder
	for i := range 2000 { // which cannot be compressed to what an index takes
		fmt.Fprintf(&long, "%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
	}
	change := state.AgeChange{New: []state.ConfigAge{{
		Key: snapshot.Key{Kind: "Service", Namespace: "a", Name: "b"}, File: long.String(),
		FirstSeen: noon,
	}}}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if i%10 == 0 {
				if _, err := d.KeepConfigAges(t.Context(), change); err == nil {
					t.Error("it was taken")
				}
				return
			}
			if err := d.Record(t.Context(), event(fmt.Sprint("node n", i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// A transaction that the server undoes because another one stands in its way is done again.
func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	cfg := server.Database(t)
	d := open(t, cfg)
	must(t, d.SetPeerSuspended(t.Context(), "retail", false))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	other, err := server.Connect(t, cfg.Database).Begin(ctx)
	must(t, err)
	for _, s := range []string{
		"SET LOCAL deadlock_timeout = '1h'",
		"SELECT 1 FROM peers WHERE name = 'retail' FOR UPDATE",
	} {
		_, err = other.Exec(ctx, s)
		must(t, err)
	}
	done := make(chan error, 1)
	go func() { done <- d.SetPeerSuspended(ctx, "retail", true) }()
	observer := server.Connect(t, cfg.Database)
	waitFor(t, "writer that waits", func() bool {
		var n int
		must(t,
			observer.QueryRow(ctx,
				"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'isthmus' AND wait_event_type = 'Lock' AND datname = $1", cfg.Database).Scan(&n))
		return n == 1
	})
	_, err = other.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", 0x49535448) // which the writer has
	must(t, err)
	must(t, other.Rollback(ctx))
	must(t, <-done)
	p, err := statetest.PeerOf(ctx, d, "retail")
	must(t, err)
	if !p.State.Suspended {
		t.Error("it was not written")
	}
}

// What is written while a listener's connection is away is heard when it is back.
func TestNothingIsLostToListeners(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t)
	cfg := server.Database(t)
	d := open(t, cfg)
	news := d.Watch(t.Context())
	other := open(t, cfg)
	for i := range 5 {
		server.Admin(t, cfg.Database,
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
			cfg.Database)
		want := fmt.Sprint("peer", i)
		must(t, other.SetPeerSuspended(t.Context(), want, true))
		for heard := false; !heard; {
			select {
			case changes := <-news:
				for _, c := range changes {
					heard = heard || c == state.Change{Topic: state.Peers, Key: want} || c.Topic == state.Everything
				}
			case <-time.After(patience):
				t.Fatalf("nobody said that %s was suspended", want)
			}
		}
	}
}

// A refused password is not told to whoever reads the error, and TLS is not left out by itself.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	cfg := pgtest.Shared(t).Database(t)
	must(t, os.WriteFile(cfg.PasswordFile, []byte("a wrong one"), 0o600))
	_, err := postgres.Open(t.Context(), cfg)
	if err == nil || strings.Contains(err.Error(), "a wrong one") || !strings.Contains(err.Error(), cfg.Database) {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() { // a server that has no TLS
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 8)
			// asks for TLS
			if _, err := io.ReadFull(c, b); err == nil && bytes.Equal(b, []byte{0, 0, 0, 8, 4, 210, 22, 47}) {
				_, _ = c.Write([]byte("N"))
			} else {
				t.Errorf("it was told %v", b)
			}
			if more, _ := io.ReadAll(c); len(more) > 0 {
				t.Errorf("it was told %q", more)
			}
			c.Close()
		}
	}()
	cfg.Addresses = []string{l.Addr().String()}
	if _, err := postgres.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a server without TLS: %v", err)
	}
}

// A server is believed by its certificate, for the name by which it is called.
func TestTLS(t *testing.T) {
	t.Parallel()
	host := fmt.Sprintf("127.%d.%d.77", 1+os.Getpid()%250, 1+os.Getpid()/250%250)
	root, cert, key := certificates(t, host)
	other, _, _ := certificates(t, host)
	server := pgtest.Start(t)
	cfg := server.Database(t)
	must(t, server.Kill())
	must(t, server.ServeTLS(host, cert, key))
	must(t, server.Launch())
	cfg.Addresses, cfg.RootCert = []string{net.JoinHostPort(host, "5432")}, root
	d := open(t, cfg)
	must(t, d.Record(t.Context(), event("node n1")))
	wrong := cfg
	wrong.RootCert = other
	if _, err := postgres.Open(t.Context(), wrong); err == nil ||
		!strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("under another root: %v", err)
	}
}

// certificates are the file of a root, and a certificate under it for an address, with its key.
func certificates(t *testing.T, host string) (root string, cert, key []byte) {
	t.Helper()
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, made.Public(), made)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, made.Public(), made)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(made)
	must(t, err)
	root = filepath.Join(t.TempDir(), "root.pem")
	must(t, os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600))
	return root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	waittest.Until(t, what, holds)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
