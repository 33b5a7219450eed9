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
	// lookEvery is how often what is open is judged, beside each time that somebody is revoked.
	lookEvery = time.Second
	// lastWords is how long a connection stays open for the answers that say why it ends. Nothing new is answered
	// meanwhile.
	lastWords = time.Second
)

// openings are the connections and streams of callers who showed a certificate. Those whose certificate stops being
// good end.
type openings struct {
	judge func(context.Context, Caller) error

	mu  sync.Mutex // guards all
	all map[*opening]struct{}
}

type opening struct {
	caller Caller
	end    func(error)
}

// add has something watched until remove is called. end is called once, with why.
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

// take reports whether it was still watched.
func (o *openings) take(one *opening) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, was := o.all[one]
	delete(o.all, one)
	return was
}

// Run judges what is open again and again, until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	retry.Every(ctx, lookEvery, d.Look)
	return nil
}

// Look judges all that is open and ends what does not stand. What cannot be told is left for the next time.
func (d *Door) Look(ctx context.Context) { d.open.look(ctx, func(Caller) bool { return true }) }

// LookAt judges what a node and its workloads have open: many nodes may join at a time.
func (d *Door) LookAt(ctx context.Context, node string) {
	d.open.look(ctx, func(c Caller) bool { return c.Kind == Workload || c.Kind == Node && c.Name == node })
}

func (o *openings) look(ctx context.Context, of func(Caller) bool) {
	ctx, cancel := context.WithTimeout(ctx, lookEvery) // of a state that hangs some ask, and who is known does not wait
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

// Opened has a connection watched until it is closed.
func (d *Door) Opened(c Caller, end func()) (closed func()) {
	return d.open.add(c, func(error) {
		if c.Kind == Workload { // what a gateway carries is a peer's, and not judged at each request
			end()
			return
		}
		time.AfterFunc(lastWords, end)
	})
}
