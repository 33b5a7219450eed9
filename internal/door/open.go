package door

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/retry"
)

const (
	// recheckEvery is how often open connections are judged, besides after each revocation.
	recheckEvery = time.Second
	// closeDelay is how long a connection stays open to deliver the reason for its end. No new calls are answered
	// meanwhile.
	closeDelay = time.Second
)

// openings are the connections and streams of callers with certificates. They end when the certificate becomes invalid.
type openings struct {
	judge func(context.Context, Caller) error

	mu  sync.Mutex // guards the fields below
	all map[*opening]struct{}
}

type opening struct {
	caller Caller
	end    func(error)
}

// add watches an opening until remove is called. end is called at most once, with the reason.
func (o *openings) add(c Caller, end func(error)) (remove func()) {
	if c.Certificate == nil {
		return func() {}
	}
	one := &opening{c, end}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[one] = struct{}{}
	return func() { o.take(one) }
}

// take stops watching an opening and reports whether it was watched.
func (o *openings) take(one *opening) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, was := o.all[one]
	delete(o.all, one)
	return was
}

// Run judges open connections and streams at intervals until ctx is done.
func (d *Door) Run(ctx context.Context) error {
	retry.Every(ctx, recheckEvery, d.Recheck)
	return nil
}

// Recheck judges everything that is open and ends what has become invalid. What cannot be decided is left for the next
// time.
func (d *Door) Recheck(ctx context.Context) { d.open.recheck(ctx, func(Caller) bool { return true }) }

// RecheckNode judges what one node and its workloads have open. Many nodes may join at the same time.
func (d *Door) RecheckNode(ctx context.Context, node string) {
	d.open.recheck(ctx, func(c Caller) bool { return c.Kind == Workload || c.Kind == Node && c.Name == node })
}

func (o *openings) recheck(ctx context.Context, of func(Caller) bool) {
	// of a state that hangs some ask, and who is known does not wait
	ctx, cancel := context.WithTimeout(ctx, recheckEvery)
	defer cancel()
	o.mu.Lock()
	var some []*opening
	for one := range o.all {
		if of(one.caller) {
			some = append(some, one)
		}
	}
	o.mu.Unlock()
	for _, one := range some {
		err := o.judge(ctx, one.caller)
		switch status.Code(err) {
		case codes.PermissionDenied, codes.Unauthenticated:
			if o.take(one) {
				one.end(err)
			}
		}
	}
}

// Opened watches a connection until it is closed.
func (d *Door) Opened(c Caller, end func()) (closed func()) {
	return d.open.add(c, func(error) {
		if c.Kind == Workload { // a gateway carries peers' calls, which are not judged per request
			end()
			return
		}
		time.AfterFunc(closeDelay, end)
	})
}
