//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// largeAnswer is more than all kernels and Envoys on the way hold.
const largeAnswer = 64 << 20

// endless is as many bytes as anybody asks for.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// patience is longer than a connection lives whose other end is taken for gone.
const patience = 22 * time.Second

// beginPatience opens a stream and is silent on it, and asks for much and leaves it lying; what it returns finds both
// as they were. They last while other tests change policies of other workloads, listeners and certificates.
func (s *shop) beginPatience(t *testing.T) func(*testing.T) {
	t.Helper()
	began := time.Now()
	silent, err := s.open("alice", "steady")
	need(t, err)
	t.Cleanup(func() { silent.Close() })
	if r := silent.send(fmt.Sprintf(upgradeTo, "/protocols/stream", "upgrade", "websocket", "")); r.status != 101 {
		t.Fatalf("a stream: %s", r)
	}
	_, err = silent.in.ReadString('\n') // the server's welcome
	need(t, err)
	reader, err := s.open("alice", "steady")
	need(t, err)
	t.Cleanup(func() { reader.Close() })
	_, err = io.WriteString(reader, "GET /protocols/large HTTP/1.1\r\nhost: steady\r\n\r\n")
	need(t, err)
	return func(t *testing.T) {
		waittest.Quiet(time.Until(began.Add(patience)))
		need(t, errors.Join(silent.SetDeadline(time.Now().Add(30*time.Second)),
			reader.SetDeadline(time.Now().Add(30*time.Second))))
		if err := s.echo(silent); err != nil {
			t.Errorf("a silent stream: %v", err)
		}
		resp, err := http.ReadResponse(reader.in, nil)
		need(t, err)
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != largeAnswer {
			t.Errorf("an answer that was left lying: %d bytes of %d, %v", n, largeAnswer, err)
		}
	}
}
