// Package standing caches which certificates the control plane accepts now, and stores revocations that are already in
// effect.
package standing

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// State finds nodes and administrators by the generation of their certificates.
type State interface {
	NodeOf(ctx context.Context, generation string) (state.Node, error)
	Admin(ctx context.Context, generation string) (state.Admin, error)
}

// Config of a Standing. All fields are required.
type Config struct {
	State  State
	Trusts func(chains [][]*x509.Certificate) bool // whether a chain leads to a root that the mesh trusts now
	Now    func() time.Time
}

// Standing caches nodes and administrators by the generation of their certificates, so that calls need not read the
// state. Only joins and revocations change them, and both call Forget afterwards; a call in progress counts as an
// earlier one.
type Standing struct {
	Config

	mu      sync.Mutex // guards the fields below
	changes uint64     // counts calls of Forget
	nodes   map[string]state.Node
	admins  map[string]state.Admin
	ended   map[string]bool // generations revoked since the start, whether or not that is stored
}

// New returns a Standing.
func New(c Config) *Standing {
	return &Standing{
		Config: c, nodes: map[string]state.Node{}, admins: map[string]state.Admin{}, ended: map[string]bool{},
	}
}

// holds returns an error if a certificate with this identity and generation is not valid. A node's certificates for
// workloads share the validity of the node's generation.
func (s *Standing) holds(ctx context.Context, id spiffe.ID, generation string) error {
	if name, ok := spiffe.AdminName(id); ok {
		return s.judgeAdmin(ctx, name, generation)
	}
	if name, ok := spiffe.NodeName(id); ok {
		_, err := s.Node(ctx, name, generation)
		return err
	}
	_, err := s.Node(ctx, "", generation)
	return err
}

// Node returns the node with this generation. If name is not empty, it must be its name.
func (s *Standing) Node(ctx context.Context, name, generation string) (state.Node, error) {
	if s.HasEnded(generation) {
		return state.Node{}, revoked(name)
	}
	n, err := known(ctx, s, s.nodes, s.State.NodeOf, generation)
	switch {
	case errors.Is(err, state.ErrNotFound) && name == "", err == nil && name != "" && n.Name != name:
		return n, status.Error(codes.PermissionDenied,
			"this certificate was issued to no node that has a part in the mesh (any more): get a new one")
	case errors.Is(err, state.ErrNotFound):
		return n, status.Errorf(codes.PermissionDenied,
			"node %s is not known here, or has joined again since it got this certificate: join it with a new token",
			name)
	case err != nil:
		return n, status.Error(codes.Internal, err.Error())
	case !n.Revoked.IsZero() || s.HasEnded(generation):
		return n, revoked(n.Name)
	}
	return n, nil
}

// revoked refuses a node; an empty name is that of one whose workload it is about.
func revoked(name string) error {
	if name == "" {
		return status.Error(codes.PermissionDenied, "the node that this certificate was issued to was revoked")
	}
	return status.Errorf(codes.PermissionDenied,
		"node %s was revoked: to let it in again, empty its stateDir and start it with a new token (isthmus token "+
			"create --node %s)", name, name)
}

func (s *Standing) judgeAdmin(ctx context.Context, name, generation string) error {
	a, err := known(ctx, s, s.admins, s.State.Admin, generation)
	switch {
	case errors.Is(err, state.ErrNotFound), err == nil && a.Name != name:
		return status.Errorf(codes.PermissionDenied,
			"this certificate of administrator %s is not on record: make one with 'isthmus admin cert' on "+
				"the control plane's host", name)
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	case !a.Revoked.IsZero() || s.HasEnded(generation):
		return status.Errorf(codes.PermissionDenied, "this certificate of administrator %s was revoked", name)
	}
	return nil
}

// known returns what belongs to a generation, from the state if it is not cached; state.ErrNotFound if nothing does.
func known[T any](
	ctx context.Context, s *Standing, kept map[string]T, read func(context.Context, string) (T, error),
	generation string,
) (T, error) {
	s.mu.Lock()
	v, ok := kept[generation]
	changes := s.changes
	s.mu.Unlock()
	switch {
	case generation == "":
		return v, state.ErrNotFound
	case ok:
		return v, nil
	}
	v, err := read(ctx, generation)
	if err != nil {
		return v, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes { // otherwise it may already be outdated
		kept[generation] = v
	}
	return v, nil
}

// HasEnded reports whether a generation was revoked since the start of this process.
func (s *Standing) HasEnded(generation string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[generation]
}

// End revokes a generation immediately, for the life of this process.
func (s *Standing) End(generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[generation] = true
}

// ForgetAll forgets everybody.
func (s *Standing) ForgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	clear(s.nodes)
	clear(s.admins)
}

// EndNode ends the cached generation of a node, for use when the state cannot be read. It reports whether there was
// one: whatever was judged since the last Forget is cached.
func (s *Standing) EndNode(name string) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for generation, n := range s.nodes {
		if n.Name == name {
			s.ended[generation], known = true, true
		}
	}
	return known
}

// Admins returns the cached administrator certificates, for use when the state cannot be read.
func (s *Standing) Admins() []state.Admin {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.admins))
}

// Forget must be called when the state's data about the node or administrators with this name has changed.
func (s *Standing) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	maps.DeleteFunc(s.nodes, func(_ string, n state.Node) bool { return n.Name == name })
	maps.DeleteFunc(s.admins, func(_ string, a state.Admin) bool { return a.Name == name })
}
