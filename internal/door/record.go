package door

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/state"
)

// recordWait is how long a revocation waits for its record, since the database may be unavailable.
const recordWait = time.Second

// record is a recorded action in progress.
type record struct {
	event state.Event
	seq   uint64
	err   error
}

// begin records an action before it is carried out.
func (d *Door) begin(ctx context.Context, c *call, request any) error {
	if !c.Recorded {
		return nil
	}
	e := state.Event{Actor: c.caller.Actor(), From: c.caller.From(), Action: c.Action, Detail: c.caller.Proof()}
	if c.Describe != nil {
		var detail string
		e.Object, detail = c.Describe(request)
		e.Detail = join(e.Detail, detail)
	}
	begun := make(chan record, 1)
	write := func(ctx context.Context) {
		seq, err := d.Events.BeginEvent(ctx, e)
		begun <- record{e, seq, err}
	}
	var enough <-chan time.Time
	if c.Vital {
		enough = time.After(recordWait)
		go write(context.WithoutCancel(ctx)) // ends with the write, whose duration the state limits
	} else {
		write(ctx)
	}
	err := fmt.Errorf("no answer within %s", recordWait)
	select {
	case r := <-begun:
		c.note(r)
		err = r.err
	case <-enough:
		c.late = begun
	}
	switch {
	case err == nil:
	case c.Vital:
		d.Log.Error("carried out without a record", "actor", e.Actor, "from", e.From, "action", e.Action,
			"object", e.Object, "error", err)
	default:
		return status.Errorf(codes.Unavailable, "not done, because it cannot be recorded: %v", err)
	}
	return nil
}

// note records that an action was recorded.
func (c *call) note(r record) {
	if r.err == nil {
		c.begun, c.seq = &r.event, r.seq
	}
}

// end records the outcome of a call.
func (d *Door) end(ctx context.Context, c *call, err error) error {
	select {
	case r := <-c.late: // nil, unless begin did not wait for the record
		c.note(r)
	default:
	}
	code := status.Code(err)
	denied := code == codes.PermissionDenied || code == codes.Unauthenticated
	switch {
	case c.begun != nil:
		e := *c.begun
		e.Outcome = state.OK
		e.Detail = join(e.Detail, c.notes.text())
		switch {
		case denied:
			e.Outcome = state.Refused
		case err != nil:
			e.Outcome = state.Failed
		}
		if err != nil {
			e.Detail = join(e.Detail, status.Convert(err).Message())
		}
		if werr := d.Events.EndEvent(context.WithoutCancel(ctx), c.seq, e); werr != nil {
			d.Log.Error("outcome not recorded", "actor", e.Actor, "action", e.Action, "object", e.Object,
				"outcome", e.Outcome, "error", werr)
		}
	case denied && !c.SelfRecorded:
		d.refused(c, err)
	}
	return err
}

func join(parts ...string) string {
	return strings.Join(deleteEmpty(parts), "; ")
}

func deleteEmpty(in []string) (out []string) {
	for _, s := range in {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
