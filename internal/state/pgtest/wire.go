package pgtest

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state/postgres"
)

// Wire leads to a database, and can be cut.
type Wire struct {
	dir, server string
	forward     atomic.Bool // of CutAtCommit
	cut         atomic.Bool // likewise

	mu      sync.Mutex // guards all below
	severed bool
	conns   map[net.Conn]*atomic.Bool // whether what is sent on it is swallowed
}

// NewWire leads to a database; cfg is made to go by it.
func NewWire(t testing.TB, cfg *postgres.Config) *Wire {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-wire-")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{dir: dir, server: cfg.Addresses[0], conns: map[net.Conn]*atomic.Bool{}}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		w.Sever()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			w.join(client)
		}
	}()
	cfg.Addresses = []string{dir}
	return w
}

func (w *Wire) join(client net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	up, err := net.Dial("unix", filepath.Join(w.server, ".s.PGSQL.5432"))
	if w.severed || err != nil {
		client.Close()
		if up != nil {
			up.Close()
		}
		return
	}
	silent := &atomic.Bool{}
	w.conns[client] = silent
	go w.pass(client, up, silent)
	go func() {
		_, _ = io.Copy(client, up)
		client.Close()
	}()
}

// Sever ends all connections, and lets none be made until Mend.
func (w *Wire) Sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.severed = true
	for c := range w.conns {
		c.Close()
	}
}

// Mend ends Sever.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.severed = false
}

// Silence swallows what is sent on the connections that there are.
func (w *Wire) Silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, silent := range w.conns {
		silent.Store(true)
	}
}

// CutAtCommit ends the next connection on which a transaction is committed, before the server hears of that, or after.
func (w *Wire) CutAtCommit(heard bool) {
	w.forward.Store(heard)
	w.cut.Store(true)
}

// Cut reports whether CutAtCommit has had its effect.
func (w *Wire) Cut() bool { return !w.cut.Load() }

// pass passes what a client says on, up to the commit at which the connection is to be cut.
func (w *Wire) pass(client, up net.Conn, silent *atomic.Bool) {
	defer func() {
		client.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, client)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			up.Close()
			return
		}
		if silent.Load() {
			continue
		}
		if bytes.Contains(buf[:n], []byte("commit\x00")) && w.cut.CompareAndSwap(true, false) {
			client.Close()
			if w.forward.Load() {
				_, _ = up.Write(buf[:n])
			}
			time.AfterFunc(50*time.Millisecond, func() { up.Close() }) // the server reads what it was sent
			return
		}
		if _, err := up.Write(buf[:n]); err != nil {
			up.Close()
			return
		}
	}
}
