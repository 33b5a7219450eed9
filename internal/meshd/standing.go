package meshd

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"isthmus.dev/isthmus/internal/state"
)

// standing is what the state knows of a node, as long as nothing changes it.
type standing struct {
	state.Node
	revoked map[[sha256.Size]byte]bool // certificates that it had when it was revoked
}

type nodeStore interface {
	Node(ctx context.Context, name string) (state.Node, error)
	Blob(ctx context.Context, name string) (state.Blob, error)
}

// standings spare the state file from being asked about the same node at each of its calls. Only joining and revoking change
// what is kept here, and both call forget when they have; until then a call under way is one that came a moment earlier.
type standings struct {
	db nodeStore

	mu      sync.Mutex // guards all below
	changes uint64     // how often something was forgotten
	known   map[string]standing
}

// of reads a node; state.ErrNotFound when there is none.
func (s *standings) of(ctx context.Context, node string) (standing, error) {
	s.mu.Lock()
	st, ok := s.known[node]
	changes := s.changes
	s.mu.Unlock()
	if ok {
		return st, nil
	}
	st, err := s.read(ctx, node)
	if err != nil {
		return st, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes { // else it may be out of date already
		s.known[node] = st
	}
	return st, nil
}

func (s *standings) read(ctx context.Context, node string) (standing, error) {
	n, err := s.db.Node(ctx, node)
	if err != nil {
		return standing{}, err
	}
	b, err := s.db.Blob(ctx, revokedBlob(node))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return standing{}, err
	}
	st := standing{Node: n, revoked: map[[sha256.Size]byte]bool{}}
	for sums := b.Cert; len(sums) >= sha256.Size; sums = sums[sha256.Size:] {
		st.revoked[[sha256.Size]byte(sums)] = true
	}
	return st, nil
}

// forget must be called when what the state knows of a node has changed.
func (s *standings) forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	delete(s.known, node)
}
