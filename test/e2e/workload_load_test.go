//go:build e2e

package e2e

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// load is a caller that asks all the while, every other request on a connection of its own.
type load struct {
	stopped atomic.Bool
	done    sync.WaitGroup

	mu     sync.Mutex // guards failed
	failed []string
	sent   int
}

// startLoad asks a service at a rate until it is stopped.
func (s *shop) startLoad(t *testing.T, from, service string, perSecond int) *load {
	t.Helper()
	l := &load{}
	l.done.Go(func() {
		var kept *line
		for n := 0; !l.stopped.Load(); n++ {
			began := time.Now()
			var r reply
			switch {
			case n%2 == 0:
				r = s.get(from, service, "/")
			case kept == nil:
				var err error
				if kept, err = s.open(from, service); err != nil {
					kept, r = nil, reply{err: err}
					break
				}
				fallthrough
			default:
				r = kept.request("GET", "/")
			}
			l.mu.Lock()
			l.sent++
			if r.err != nil || r.status != 200 {
				l.failed = append(l.failed, began.Format(time.StampMilli)+" "+r.String())
			}
			l.mu.Unlock()
			if r.err != nil && kept != nil && n%2 == 1 {
				kept.Close()
				kept = nil
			}
			waittest.Pace(time.Second/time.Duration(perSecond) - time.Since(began))
		}
		if kept != nil {
			kept.Close()
		}
	})
	t.Cleanup(func() { l.stopped.Store(true); l.done.Wait() })
	return l
}

// stop ends it and complains of each failure.
func (l *load) stop(t *testing.T) int {
	t.Helper()
	l.stopped.Store(true)
	l.done.Wait()
	for _, f := range l.failed[:min(len(l.failed), 5)] {
		t.Errorf("a request failed: %s", f)
	}
	if len(l.failed) > 0 || l.sent == 0 {
		t.Errorf("%d of %d requests failed", len(l.failed), l.sent)
	}
	return l.sent
}

// shortCertificates: half a minute of load while certificates live for ten seconds.
func (s *shop) shortCertificates(t *testing.T, l *load, began time.Time) {
	if rest := 30*time.Second - time.Since(began); rest > 0 {
		waittest.Quiet(rest)
	}
	n := l.stop(t)
	log, err := os.ReadFile(s.path("logs", "front.log"))
	need(t, err)
	renewed := strings.Count(string(log),
		`msg="certificate issued" identity=spiffe://shop.example/ns/default/sa/alice `) - 1
	if renewed < 3 {
		t.Errorf("the caller's certificate was renewed %d times, want 3 or more", renewed)
	}
	t.Logf("%d requests in %s over %d renewals", n, time.Since(began).Round(time.Second), renewed)
}
