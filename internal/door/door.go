package door

import (
	"container/list"
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/state"
)

// Events is where deeds and refusals are recorded.
type Events interface {
	Record(context.Context, state.Event) error
	BeginEvent(context.Context, state.Event) (seq uint64, err error)
	EndEvent(ctx context.Context, seq uint64, e state.Event) error
}

// Door stands before the methods of gRPC servers.
type Door struct {
	methods  map[string]Method // by full name, "/<service>/<method>"
	events   Events
	refusals *Refusals
	log      *slog.Logger
	limits   *limits
	judge    func(context.Context, Caller) error
}

// New makes a door for these methods, and no others. judge refuses callers whose certificate is good no more.
func New(
	methods map[string]Method, judge func(context.Context, Caller) error, events Events, refusals *Refusals,
	log *slog.Logger,
) *Door {
	return &Door{methods: methods, judge: judge, events: events, refusals: refusals, log: log, limits: newLimits()}
}

// call is one call on its way through the door.
type call struct {
	Method
	name   string // full
	caller Caller
	ctx    context.Context
	notes  *notes
	end    context.CancelFunc // of a call whose life is bounded

	began time.Time     // guarded by limits.mu, as are the next two
	place *list.Element // in limits.mute
	left  bool          // it does not count any more
}

// steps are what a call passes before a byte of its message is read, in this order. None may block for long. What is
// left, to bound the message and to record what it asks for, follows in serve. A certificate that was revoked is judged
// before anything is counted: it takes nothing of the share of whom it was issued to.
var steps = []func(*Door, *call) error{(*Door).identify, (*Door).authorize, (*Door).judged, (*Door).limit}

// Options make a gRPC server let everything through the door.
func (d *Door) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(Credentials{}), grpc.InTapHandle(d.enter), grpc.UnaryInterceptor(noUnary),
		grpc.StreamInterceptor(d.serve),
	}
}

type callKey struct{}

// enter is a tap.ServerInHandle.
func (d *Door) enter(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &call{name: info.FullMethodName, ctx: ctx, notes: &notes{}}
	for _, step := range steps {
		if err := step(d, c); err != nil {
			d.refused(c, err)
			return nil, err
		}
	}
	return context.WithValue(With(c.ctx, c.caller), callKey{}, c), nil
}

func (d *Door) identify(c *call) error {
	p, ok := peer.FromContext(c.ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return status.Error(codes.Unauthenticated, "the connection did not come through the door")
	}
	c.caller = info.caller
	return nil
}

// judged refuses who proved something when the connection was made that does not stand any more.
func (d *Door) judged(c *call) error {
	if c.caller.Kind == Local || c.caller.Kind == Stranger {
		return nil
	}
	return d.judge(c.ctx, c.caller)
}

func (d *Door) authorize(c *call) error {
	m, ok := d.methods[c.name]
	if !ok {
		return status.Errorf(codes.Unimplemented, "there is no method %.100q", c.name)
	}
	c.Method = m
	if c.caller.Kind&m.Who != 0 {
		return nil
	}
	if c.caller.Kind == Stranger && m.Who&^Local != 0 {
		return status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	}
	return status.Errorf(codes.PermissionDenied, "%s may not do this: %s", c.caller.Actor(), m.Deny)
}

// limit bounds those who come from elsewhere. A user of this host has other ways to keep it busy, and is never kept
// waiting.
func (d *Door) limit(c *call) error {
	if c.caller.Kind == Local {
		return nil
	}
	if c.Life > 0 {
		c.ctx, c.end = context.WithTimeout(c.ctx, c.Life)
		context.AfterFunc(c.ctx, c.end)
	}
	if why := d.limits.take(c); why != "" {
		if c.end != nil {
			c.end()
		}
		return status.Error(codes.ResourceExhausted, why)
	}
	context.AfterFunc(c.ctx, func() { d.limits.leave(c) })
	return nil
}

// refused folds a refusal into the record.
func (d *Door) refused(c *call, err error) {
	e := state.Event{
		Actor: c.caller.Actor(), From: c.caller.From(), Action: c.Action, Outcome: state.Refused,
		Detail: status.Convert(err).Message(),
	}
	if c.Action == "" {
		e.Action, e.Object = "call", c.name
	}
	if c.caller.Kind == Stranger {
		e.From = c.caller.Net().String()
	}
	d.refusals.Add(e)
}

// serve is a grpc.StreamServerInterceptor: it bounds the messages of a call, and records it.
func (d *Door) serve(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, ok := ss.Context().Value(callKey{}).(*call)
	if !ok || c.name != info.FullMethod {
		return status.Error(codes.Internal, "the call did not come through the door")
	}
	s := &stream{ServerStream: ss, door: d, call: c}
	return s.end(next(srv, s))
}

func noUnary(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	return nil, status.Errorf(codes.Internal, "%s is served without bounds on its messages: describe it by rpc.Unary",
		info.FullMethod)
}

// stream is the server's side of a call.
type stream struct {
	grpc.ServerStream
	door  *Door
	call  *call
	asked bool
	begun *state.Event // that is recorded
	seq   uint64
}

// RecvMsg reads one message, if it is not too long. The first is what the call asks for.
func (s *stream) RecvMsg(m any) error {
	if err := rpc.Receive(s.ServerStream, m, s.call.Bytes, s.admit); err != nil {
		return err
	}
	if s.asked {
		return nil
	}
	s.asked = true
	s.door.limits.heard(s.call)
	return s.begin(m)
}

// admit waits for a place for a long message: a caller may send only so many at a time.
func (s *stream) admit(bytes int) (release func(), err error) {
	if bytes <= longMessage {
		return func() {}, nil
	}
	places := s.door.limits.places(s.call.caller)
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-s.Context().Done():
		return nil, status.FromContextError(s.Context().Err()).Err()
	}
}

// begin records a deed before it is carried out.
func (s *stream) begin(request any) error {
	c := s.call
	if !c.Deed {
		return nil
	}
	e := state.Event{Actor: c.caller.Actor(), From: c.caller.From(), Action: c.Action, Detail: c.caller.Proof()}
	if c.Describe != nil {
		var detail string
		e.Object, detail = c.Describe(request)
		e.Detail = join(e.Detail, detail)
	}
	seq, err := s.door.events.BeginEvent(s.Context(), e)
	switch {
	case err == nil:
		s.begun, s.seq = &e, seq
	case c.Vital:
		s.door.log.Error("carried out without a record", "actor", e.Actor, "from", e.From, "action", e.Action,
			"object", e.Object, "error", err)
	default:
		return status.Errorf(codes.Unavailable, "not done, because it cannot be recorded: %v", err)
	}
	return nil
}

// end records how a call went.
func (s *stream) end(err error) error {
	code := status.Code(err)
	denied := code == codes.PermissionDenied || code == codes.Unauthenticated
	switch {
	case s.begun != nil:
		e := *s.begun
		e.Outcome = state.OK
		e.Detail = join(e.Detail, s.call.notes.text())
		switch {
		case denied:
			e.Outcome = state.Refused
		case err != nil:
			e.Outcome = state.Failed
		}
		if err != nil {
			e.Detail = join(e.Detail, status.Convert(err).Message())
		}
		if werr := s.door.events.EndEvent(context.WithoutCancel(s.Context()), s.seq, e); werr != nil {
			s.door.log.Error("outcome not recorded", "actor", e.Actor, "action", e.Action, "object", e.Object,
				"outcome", e.Outcome, "error", werr)
		}
	case denied && !s.call.Itself:
		s.door.refused(s.call, err)
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
