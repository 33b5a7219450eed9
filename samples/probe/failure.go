package probe

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Failure is one request of many that failed.
type Failure struct {
	Time  time.Time     `json:"time"`            // when it began
	Took  time.Duration `json:"took"`            // until it failed
	Phase string        `json:"phase,omitempty"` // what it waited for in the end
	Error string        `json:"error"`
}

// The phases of a request, as every customer names them.
const (
	resolving  = "resolve" // its host's name
	connecting = "connect"
	answering  = "answer"
	reusing    = "answer on a kept connection"
)

func (f Failure) String() string {
	return fmt.Sprintf("%s %.3f s, %s: %s", f.Time.UTC().Format("15:04:05.000"), f.Took.Seconds(), f.Phase, f.Error)
}

// maxFailed is how many failures are told one by one.
const maxFailed = 1000

// fail counts one more.
func (r *Result) fail(f Failure) {
	r.Failures++
	if len(r.Failed) < maxFailed {
		r.Failed = append(r.Failed, f)
	}
}

// Join adds what came of more requests.
func (r *Result) Join(more Result) {
	r.Requests += more.Requests
	r.Failures += more.Failures
	r.Failed = append(r.Failed, more.Failed[:min(len(more.Failed), maxFailed-len(r.Failed))]...)
	r.took(more.SlowestAt, more.Slowest)
}

// FirstFailure in words; empty without one.
func (r Result) FirstFailure() string {
	if len(r.Failed) == 0 {
		return ""
	}
	return r.Failed[0].String()
}

// took remembers the longest request.
func (r *Result) took(began time.Time, elapsed time.Duration) {
	if elapsed > r.Slowest {
		r.Slowest, r.SlowestAt = elapsed, began
	}
}

// phase of a request, as its client tells it.
type phase struct{ now atomic.Pointer[string] }

func (p *phase) is(name string) { p.now.Store(&name) }

func (p *phase) String() string {
	if name := p.now.Load(); name != nil {
		return *name
	}
	return connecting
}

func (p *phase) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { p.is(resolving) },
		ConnectStart: func(string, string) { p.is(connecting) },
		GotConn: func(c httptrace.GotConnInfo) {
			p.is(answering)
			if c.Reused {
				p.is(reusing)
			}
		},
	})
}
