package sds

import (
	"bytes"
	"crypto/x509"
	"slices"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
)

// IdentityState is the state of one identity.
type IdentityState struct {
	SVID    *identity.SVID // nil while there is none
	Roots   []*x509.Certificate
	Changed <-chan struct{} // closed when any of the store's certificates, or the roots, change
}

// Acquire requests an identity's certificate unless somebody did already, and returns the identity's state; false when
// it is not this node's.
func (s *Store) Acquire(id spiffe.ID) (IdentityState, bool) {
	if _, ok := s.require(id.String()); !ok {
		return IdentityState{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return IdentityState{SVID: s.svids[id], Roots: s.roots, Changed: s.changed}, true
}

// SetRoots sets the mesh's present roots. From then on the roots that come with certificates do not count, since they
// may be older.
func (s *Store) SetRoots(roots []*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	roots = inOrder(roots)
	same := slices.EqualFunc(s.roots, roots, (*x509.Certificate).Equal)
	s.roots, s.rootsTold = roots, true
	if !same {
		s.announce()
	}
}

// inOrder sorts roots: a program could take another order for a change.
func inOrder(roots []*x509.Certificate) []*x509.Certificate {
	return slices.SortedFunc(slices.Values(roots),
		func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
}

// announce signals a change. The caller holds mu.
func (s *Store) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}
