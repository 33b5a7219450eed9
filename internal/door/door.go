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

// Events records actions and refusals.
type Events interface {
	Record(context.Context, state.Event) error
	BeginEvent(context.Context, state.Event) (seq uint64, err error)
	EndEvent(ctx context.Context, seq uint64, e state.Event) error
}

// Config configures a Door.
type Config struct {
	Methods  map[string]Method                   // by full name, "/<service>/<method>"; others do not exist
	Judge    func(context.Context, Caller) error // refuses callers whose certificate has become invalid
	Events   Events
	Refusals *Refusals
	Log      *slog.Logger
}

// Door guards the methods of gRPC and HTTP servers.
type Door struct {
	Config
	limits *limits
	open   openings
}

// New returns a Door.
func New(w Config) *Door {
	d := &Door{Config: w, limits: newLimits()}
	d.open = openings{judge: w.Judge, all: map[*opening]struct{}{}}
	return d
}

// call is one call on its way through the door.
type call struct {
	Method
	name   string // full method name
	who    func() (Caller, error)
	caller Caller
	object string // recorded with a refusal, beside the method
	ctx    context.Context
	notes  *notes
	end    context.CancelFunc // for calls of limited duration
	begun  *state.Event       // the recorded event
	seq    uint64             // of begun
	late   chan record        // has it, when what was not waited for is recorded

	began time.Time     // guarded by limits.mu, as are the next two
	place *list.Element // in limits.silent
	left  bool          // already counted out
}

// key identifies the caller for its share of the limits.
func (c *call) key() string {
	if c.Together {
		return "(together)"
	}
	return c.caller.key()
}

// share returns the name under which the call is counted.
func (c *call) share() string { return cmp.Or(c.Share, c.name) }

// Every call passes these steps in order before a byte of its message is read, whoever calls on whatever port. No step
// may block for long. A revoked certificate is refused before anything is counted, so that it uses nothing of its
// owner's share. When the message arrives, it is checked for its size, and its content is recorded.
var steps = []func(*Door, *call) error{
	(*Door).find, (*Door).identify, (*Door).authorize, (*Door).judge, (*Door).limit,
}

// pass takes a call through the steps and records a refusal.
func (d *Door) pass(c *call) error {
	for _, step := range steps {
		if err := step(d, c); err != nil {
			d.refused(c, err)
			return err
		}
	}
	return nil
}

// Options returns server options that make all calls pass the door.
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

// ofPeer returns the caller of a gRPC call's connection.
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

// judge refuses callers whose proof of identity has become invalid since the connection was made.
func (d *Door) judge(c *call) error {
	if c.caller.Certificate == nil {
		return nil
	}
	return d.Judge(c.ctx, c.caller)
}

// limit applies the method's limits to callers from outside. A user of this host is exempt: it could overload the host
// in other ways, and must always get through.
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

// refused adds a refusal to the record.
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

// serve returns a grpc.StreamServerInterceptor. It bounds the call's messages and records the call. It ends the call
// when the caller's certificate becomes invalid, even if the handler is blocked.
func (d *Door) serve(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, ok := ss.Context().Value(callKey{}).(*call)
	if !ok || c.name != info.FullMethod {
		return status.Error(codes.Internal, "the call did not come through the door")
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer d.open.add(c.caller, cancel)()
	s := &stream{ServerStream: ss, ctx: ctx, door: d, call: c}
	err := d.judge(c) // again: it may have been revoked before the call was watched
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

// stream is the server side of a call.
type stream struct {
	grpc.ServerStream
	ctx   context.Context // cancelled when the caller's certificate becomes invalid
	door  *Door
	call  *call
	asked bool
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg receives one message if it is within its limit. The first message is the request.
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

// admit waits for a slot for a long message. Each caller can send only a few at a time.
func (s *stream) admit(bytes int) (release func(), err error) {
	if bytes <= longMessage {
		return func() {}, nil
	}
	places := s.door.limits.longSlots(s.call.caller)
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-s.Context().Done():
		return nil, status.FromContextError(s.Context().Err()).Err()
	}
}
