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

// Wire is a proxy to a database that can interrupt connections.
type Wire struct {
	dir, server string
	forward     atomic.Bool // see CutAtCommit
	cut         atomic.Bool // see CutAtCommit

	mu      sync.Mutex // guards the fields below
	severed bool
	conns   map[net.Conn]*atomic.Bool // whether its input is dropped
}

// NewWire starts a proxy to a database and makes cfg use it.
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

// Sever closes all connections, and refuses new ones until Mend.
func (w *Wire) Sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.severed = true
	for c := range w.conns {
		c.Close()
	}
}

// Mend undoes Sever.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.severed = false
}

// Silence drops what is sent on the present connections.
func (w *Wire) Silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, silent := range w.conns {
		silent.Store(true)
	}
}

// CutAtCommit closes the next connection that commits a transaction: after the server has received the commit if heard,
// else before.
func (w *Wire) CutAtCommit(heard bool) {
	w.forward.Store(heard)
	w.cut.Store(true)
}

// Cut reports whether CutAtCommit has taken effect.
func (w *Wire) Cut() bool { return !w.cut.Load() }

// pass forwards what a client sends, up to the commit at which the connection is to be closed.
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
			time.AfterFunc(50*time.Millisecond, func() { up.Close() }) // the server processes what it has received
			return
		}
		if _, err := up.Write(buf[:n]); err != nil {
			up.Close()
			return
		}
	}
}
