//go:build e2e

package node

import (
	"errors"
	"math/bits"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
)

// sniffer collects what arrives at a network namespace and is worth a word.
type sniffer struct {
	settle time.Duration // how long what was sent may take to arrive

	mu    sync.Mutex // guards heard
	heard []string
}

// newSniffer listens by a packet socket of this type and protocol until the test ends. tell says of what arrives what
// to keep; nothing of what is not wanted.
func newSniffer(
	t *testing.T, ns string, kind int, protocol uint16, settle time.Duration, tell func([]byte) string,
) *sniffer {
	t.Helper()
	s, fd := &sniffer{settle: settle}, -1
	must(t, netns.Do(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, int(bits.ReverseBytes16(protocol)))
		return errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO,
			&unix.Timeval{Usec: 50_000}))
	}))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil || from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
				continue // nothing for a while, or nothing that arrives
			}
			if word := tell(buf[:n]); word != "" {
				s.mu.Lock()
				s.heard = append(s.heard, word)
				s.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(fd)
	})
	return s
}

// take is what was heard since the last time.
func (s *sniffer) take() []string {
	waittest.Quiet(s.settle)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.heard
	s.heard = nil
	return out
}
