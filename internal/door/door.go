package door

import (
	"cmp"
	"container/list"
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/state"
)

// Events is where actions and refusals are recorded.
type Events interface {
	Record(context.Context, state.Event) error
	BeginEvent(context.Context, state.Event) (seq uint64, err error)
	EndEvent(ctx context.Context, seq uint64, e state.Event) error
}

// Doorway describes a Door.
type Doorway struct {
	Methods  map[string]Method                   // by full name, "/<service>/<method>"; there are no others
	Judge    func(context.Context, Caller) error // refuses callers whose certificate is good no more
	Events   Events
	Refusals *Refusals
	Log      *slog.Logger
}

// Door stands before the methods of servers of gRPC and HTTP.
type Door struct {
	Doorway
	limits *limits
	open   openings
}

// New makes a Door.
func New(w Doorway) *Door {
	d := &Door{Doorway: w, limits: newLimits()}
	d.open = openings{judge: w.Judge, all: map[*opening]struct{}{}}
	return d
}

// call is one call on its way through the door.
type call struct {
	Method
	name   string // full
	who    func() (Caller, error)
	caller Caller
	object string // of what a refusal is recorded, beside its method
	ctx    context.Context
	notes  *notes
	end    context.CancelFunc // of a call whose life is bounded
	begun  *state.Event       // that is recorded
	seq    uint64             // of begun
	late   chan record        // has it, when what was not waited for is recorded

	began time.Time     // guarded by limits.mu, as are the next two
	place *list.Element // in limits.mute
	left  bool          // it does not count any more
}

// key tells callers apart whose shares are counted.
func (c *call) key() string {
	if c.Together {
		return "(together)"
	}
	return c.caller.key()
}

// share returns with whose calls it counts.
func (c *call) share() string { return cmp.Or(c.Share, c.name) }

// steps are what every call passes before a byte of its message is read, in this order, whoever calls and on whatever
// port. None may block for long. A certificate that was revoked is judged before anything is counted: it takes nothing
// of the share of whom it was issued to. What is left follows when the message is read: it is bounded, and what it asks
// for recorded.
var steps = []func(*Door, *call) error{
	(*Door).find, (*Door).identify, (*Door).authorize, (*Door).judge, (*Door).limit,
}

// pass takes a call through the steps, and records a refusal.
func (d *Door) pass(c *call) error {
	for _, step := range steps {
		if err := step(d, c); err != nil {
			d.refused(c, err)
			return err
		}
	}
	return nil
}

// Options make a gRPC server let everything through the door.
func (d *Door) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(Credentials{}), grpc.InTapHandle(d.enter), grpc.UnaryInterceptor(noUnary),
		grpc.StreamInterceptor(d.serve),
	}
}

type callKey struct{}

// enter returns a tap.ServerInHandle.
func (d *Door) enter(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &call{name: info.FullMethodName, ctx: ctx, notes: &notes{}, who: func() (Caller, error) { return ofPeer(ctx) }}
	if err := d.pass(c); err != nil {
		return nil, err
	}
	return context.WithValue(With(c.ctx, c.caller), callKey{}, c), nil
}

// ofPeer returns whom the connection of a gRPC call is from.
func ofPeer(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, status.Error(codes.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return Caller{}, status.Error(codes.Unauthenticated, "the connection did not come through the door")
	}
	return info.caller, nil
}

func (d *Door) find(c *call) error {
	m, ok := d.Methods[c.name]
	if !ok {
		c.caller, _ = c.who() // for the record
		return status.Errorf(codes.Unimplemented, "there is no method %.100q", c.name)
	}
	c.Method = m
	return nil
}

func (d *Door) identify(c *call) (err error) {
	c.caller, err = c.who()
	return err
}

func (d *Door) authorize(c *call) error {
	if c.caller.Kind&c.Who != 0 && (c.Only == nil || c.Only(c.caller)) {
		return nil
	}
	if c.caller.Kind == Stranger && c.Who&^Local != 0 {
		return status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	}
	return status.Errorf(codes.PermissionDenied, "%s may not do this: %s", c.caller.Actor(), c.Deny)
}

// judge refuses who proved something when the connection was made that does not stand any more.
func (d *Door) judge(c *call) error {
	if c.caller.Certificate == nil {
		return nil
	}
	return d.Judge(c.ctx, c.caller)
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
	if err := d.limits.take(c); err != nil {
		if c.end != nil {
			c.end()
		}
		return err
	}
	context.AfterFunc(c.ctx, func() { d.limits.leave(c) })
	return nil
}

// refused folds a refusal into the record.
func (d *Door) refused(c *call, err error) {
	e := state.Event{
		Actor: c.caller.Actor(), From: c.caller.From(), Action: c.Action, Object: c.object, Outcome: state.Refused,
		Detail: status.Convert(err).Message(),
	}
	if c.Action == "" {
		e.Action, e.Object = "call", c.name
	}
	if c.caller.Kind == Stranger {
		e.From = c.caller.Net().String()
	}
	d.Refusals.Add(e)
}

// serve returns a grpc.StreamServerInterceptor: it bounds the messages of a call, records it, and ends it when its
// caller's certificate stops being good, whatever its handler waits for.
func (d *Door) serve(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, ok := ss.Context().Value(callKey{}).(*call)
	if !ok || c.name != info.FullMethod {
		return status.Error(codes.Internal, "the call did not come through the door")
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer d.open.add(c.caller, cancel)()
	s := &stream{ServerStream: ss, ctx: ctx, door: d, call: c}
	err := d.judge(c) // again: it may have been revoked before it was watched
	if err == nil {
		err = next(srv, s)
		if why := context.Cause(ctx); ss.Context().Err() == nil && why != nil {
			err = why
		}
	}
	return d.end(ss.Context(), c, err)
}

func noUnary(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	return nil, status.Errorf(codes.Internal, "%s is served without bounds on its messages: describe it by rpc.Unary",
		info.FullMethod)
}

// stream is the server's side of a call.
type stream struct {
	grpc.ServerStream
	ctx   context.Context // ends when the caller is good no more
	door  *Door
	call  *call
	asked bool
}

// Context returns the context of the call.
func (s *stream) Context() context.Context { return s.ctx }

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
	return s.door.begin(s.ctx, s.call, m)
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
