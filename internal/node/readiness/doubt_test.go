package readiness

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// A program that did not take a connection and does not take the probe's either is not ready at once, however seldom it
// is probed. Doubt alone is no reason, nor is it that of a workload that nobody knows.
func TestDoubt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	changed := make(chan struct{}, 10)
	at := l.Addr().(*net.TCPAddr).AddrPort()
	p := New(slog.New(slog.NewTextHandler(io.Discard, nil)), []Target{{
		Workload: "default/a", Addresses: []netip.Addr{at.Addr()}, Port: at.Port(), Period: time.Hour,
		Timeout: 10 * time.Second, Failures: 3,
	}}, func() { changed <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	hear := func(want bool) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing has changed, ready is %v", p.Ready("default/a"))
		}
		if got := p.Ready("default/a"); got != want {
			t.Fatalf("ready %v, want %v", got, want)
		}
	}
	hear(true)
	p.ProbeNow("default/a")
	p.ProbeNow("default/nobody")
	c, err := l.Accept() // of the first probe
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err = l.Accept(); err != nil { // of the one that doubt made
		t.Fatal(err)
	}
	c.Close()
	if !p.Ready("default/a") {
		t.Error("a program that takes the probe is not ready")
	}
	l.Close()
	p.ProbeNow("default/a")
	hear(false)
}
