package dns

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// Who begins a question over TCP and does not end it is hung up on, and so is who asks nothing.
func TestSlowQuestionsAreHungUpOn(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	socks := &Sockets{}
	if err := s.listenAt(socks, newTestClient(t, "default/web"), nil, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	tcp := socks.tcp[0]
	go tcp.ActivateAndServe()
	defer tcp.Shutdown()
	var all sync.WaitGroup
	for what, says := range map[string][]byte{
		"silent": nil, "length": {0}, "question": append([]byte{0x0f, 0xff}, make([]byte, 100)...),
	} {
		conn, err := net.Dial("tcp", tcp.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		all.Go(func() {
			began := time.Now()
			conn.SetReadDeadline(began.Add(30 * time.Second))
			go func() {
				for _, b := range says {
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
