package identity

import (
	"crypto/tls"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

// A join token that pins the old root works until that root is withdrawn, and then says what to do.
func TestJoinTokenDuringARotation(t *testing.T) {
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	td, err := spiffe.ParseTrustDomain("cards.example")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.New(t.Context(), ca.Config{
		TrustDomain: td, Store: db, KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	made, err := a.CreateToken(t.Context(),
		ca.TokenSpec{Node: "n", Role: snapshot.RoleNode, Addresses: []string{"10.0.0.1:15012"}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := ParseToken(made.Token.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	source, err := a.Identity(t.Context(), spiffe.Control(td))
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.BeginRotation(t.Context())
	for err == nil && r.Step != ca.Done {
		if err := greet(t, a.ServerTLS(source), AttestTLS(token)); err != nil {
			t.Errorf("%s: %v", r.Step, err)
		}
		r, err = a.AdvanceRotation(t.Context(), r.Step, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := greet(t, a.ServerTLS(source), AttestTLS(token)); err == nil ||
		!strings.Contains(err.Error(), "make a new token if the root changed") {
		t.Errorf("after the rotation: %v", err)
	}
}

// greet is what a client thinks of a server.
func greet(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake() // the client says how it went
			c.Close()
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return tls.Client(raw, client).Handshake()
}
