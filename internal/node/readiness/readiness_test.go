package readiness

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestProber(t *testing.T) {
	var code atomic.Int32
	code.Store(http.StatusServiceUnavailable)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(int(code.Load()))
	}))
	defer web.Close()
	port := uint16(web.Listener.Addr().(*net.TCPAddr).Port)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := uint16(closed.Addr().(*net.TCPAddr).Port)
	closed.Close()

	changes := make(chan struct{}, 100)
	probe := Target{
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Period: 10 * time.Millisecond, Timeout: time.Second,
		Failures: 2,
	}
	with := func(name string, port uint16, path string) Target {
		p := probe
		p.Workload, p.Port, p.Path = name, port, path
		return p
	}
	p := New(slog.New(slog.DiscardHandler), []Target{
		with("none", 0, ""), with("http", port, "/ready"), with("path", port, "/other"), with("tcp", port, ""),
		with("closed", nobody, ""),
	}, func() { changes <- struct{}{} })
	if !p.Ready("none") || p.Ready("http") {
		t.Error("before any probe: without one ready, with one not")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	next := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
			t.Fatal("no change: " + what)
		}
	}
	next("tcp is ready")
	code.Store(http.StatusNoContent)
	next("http is ready")
	if !p.Ready("http") || !p.Ready("tcp") || p.Ready("path") || p.Ready("closed") {
		t.Error("http and tcp are ready, path and closed are not")
	}
	code.Store(http.StatusInternalServerError)
	next("http is not ready")
	if p.Ready("http") {
		t.Error("still ready")
	}
	cancel()
	<-done
}
