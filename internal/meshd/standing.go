package meshd

import (
	"context"
	"errors"
	"maps"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

type standingStore interface {
	NodeOf(ctx context.Context, generation string) (state.Node, error)
	Admin(ctx context.Context, generation string) (state.Admin, error)
}

// standings are whom the control plane believes, by the generation that their certificates carry. They spare the state
// file from being asked at each call. Only joining and revoking change what is kept here, and both call forget when
// they have; until then a call under way is one that came a moment earlier.
type standings struct {
	db standingStore

	mu      sync.Mutex // guards all below
	changes uint64     // how often something was forgotten
	nodes   map[string]state.Node
	admins  map[string]state.Admin
	ended   map[string]bool // generations that were revoked since the start, whether or not the state file knows by now
}

func newStandings(db standingStore) *standings {
	return &standings{db: db, nodes: map[string]state.Node{}, admins: map[string]state.Admin{}, ended: map[string]bool{}}
}

// judge says why a certificate of an identity, of a generation, does not count. Those that a node got for its
// workloads stand and fall with the node's generation.
func (s *standings) judge(ctx context.Context, id spiffe.ID, generation string) error {
	if name, ok := spiffe.AdminName(id); ok {
		return s.judgeAdmin(ctx, name, generation)
	}
	if name, ok := spiffe.NodeName(id); ok {
		_, err := s.node(ctx, name, generation)
		return err
	}
	_, err := s.node(ctx, "", generation)
	return err
}

// node is the one whose certificates carry a generation. A name that is not empty must be its name.
func (s *standings) node(ctx context.Context, name, generation string) (state.Node, error) {
	n, err := known(ctx, s, s.nodes, s.db.NodeOf, generation)
	switch {
	case errors.Is(err, state.ErrNotFound) && name == "", err == nil && name != "" && n.Name != name:
		return n, status.Error(codes.PermissionDenied,
			"this certificate was issued to no node that has a part in the mesh (any more): get a new one")
	case errors.Is(err, state.ErrNotFound):
		return n, status.Errorf(codes.PermissionDenied,
			"node %s is not known here, or has joined again since it got this certificate: join it with a new token", name)
	case err != nil:
		return n, status.Error(codes.Internal, err.Error())
	case !n.Revoked.IsZero() || s.hasEnded(generation):
		return n, status.Errorf(codes.PermissionDenied,
			"node %s was revoked: to let it in again, empty its stateDir and start it with a new token (isthmus "+
				"token create --node %s)",
			n.Name, n.Name)
	}
	return n, nil
}

func (s *standings) judgeAdmin(ctx context.Context, name, generation string) error {
	a, err := known(ctx, s, s.admins, s.db.Admin, generation)
	switch {
	case errors.Is(err, state.ErrNotFound), err == nil && a.Name != name:
		return status.Errorf(codes.PermissionDenied,
			"this certificate of administrator %s is not on record: make one with 'isthmus admin cert' on "+
				"the control plane's host", name)
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	case !a.Revoked.IsZero() || s.hasEnded(generation):
		return status.Errorf(codes.PermissionDenied, "this certificate of administrator %s was revoked", name)
	}
	return nil
}

// known reads what belongs to a generation, from the file where it has not been read yet; state.ErrNotFound when
// nothing does.
func known[T any](
	ctx context.Context, s *standings, kept map[string]T, read func(context.Context, string) (T, error), generation string,
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
	if s.changes == changes { // else it may be out of date already
		kept[generation] = v
	}
	return v, nil
}

func (s *standings) hasEnded(generation string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[generation]
}

// end takes effect at once, and lasts as long as this process.
func (s *standings) end(generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[generation] = true
}

// forget must be called when what the state file knows of the node or the administrators of a name has changed.
func (s *standings) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	maps.DeleteFunc(s.nodes, func(_ string, n state.Node) bool { return n.Name == name })
	maps.DeleteFunc(s.admins, func(_ string, a state.Admin) bool { return a.Name == name })
}
