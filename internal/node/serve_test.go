package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// Whoever asks for health or metrics slowly, or not at all, is hung up on.
func TestSlowAskersAreHungUpOn(t *testing.T) {
	t.Parallel()
	a := &Agent{log: slog.New(slog.DiscardHandler)}
	s := a.httpServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Close()
	long := strings.Repeat("x", 1000)
	var all sync.WaitGroup
	for what, says := range map[string]string{
		"silent": "", "header": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + long,
		"body": "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + long,
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all.Go(func() {
			began := time.Now()
			conn.SetReadDeadline(began.Add(12 * time.Second))
			go func() {
				for _, b := range []byte(says) {
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
					waittest.Pace(200 * time.Millisecond)
				}
			}()
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: still connected after %s", what, time.Since(began))
			}
		})
	}
	all.Wait()
}
