package federation

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Terms say how long a peering lasts. Zero fields change nothing.
type Terms struct {
	MaxBundleAge time.Duration
	ExpiresAt    time.Time
	Never        bool // it does not expire
}

// SetTerms changes how long a peering made by token lasts and returns its end; zero means never. It holds until the
// peering ends. A peer from a file must be changed in the file.
func (s *Service) SetTerms(
	ctx context.Context, name string, t Terms,
) (maxBundleAge time.Duration, expires time.Time, err error) {
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.notRevoked(ctx, name); err != nil {
		return 0, time.Time{}, err
	}
	p, err := s.peer(ctx, name)
	if err != nil {
		return 0, time.Time{}, err
	}
	if p.fromFile {
		o := s.snapshotConfig().Origin(snapshot.KeyFor[*v1alpha1.MeshPeer]("", name))
		return 0, time.Time{},
			fmt.Errorf("peer %s is described by a file: write spec.maxBundleAge and spec.expiresAt at %s:%d",
				name, o.File, o.Line)
	}
	object := p.object.DeepCopy()
	if t.MaxBundleAge != 0 {
		if t.MaxBundleAge < peerrules.LeastBundleAge || t.MaxBundleAge > peerrules.MostBundleAge {
			return 0, time.Time{}, fmt.Errorf("roots may grow between %s and %s old, not %s", peerrules.LeastBundleAge,
				peerrules.MostBundleAge, t.MaxBundleAge)
		}
		object.Spec.MaxBundleAge = &metav1.Duration{Duration: t.MaxBundleAge}
	}
	switch {
	case t.Never && !t.ExpiresAt.IsZero():
		return 0, time.Time{}, fmt.Errorf("a peering ends at a time or never, not both")
	case t.Never:
		object.Spec.ExpiresAt = nil
	case t.ExpiresAt.IsZero():
	case !t.ExpiresAt.After(s.Now()):
		return 0, time.Time{},
			fmt.Errorf("%s is over: to end the peering now, 'isthmus peer suspend %s' or 'isthmus peer revoke %s'",
				t.ExpiresAt.UTC().Format(time.RFC3339), name, name)
	default:
		object.Spec.ExpiresAt = &metav1.Time{Time: t.ExpiresAt.UTC().Truncate(time.Second)}
	}
	made := s.snapshotConfig().Origin(snapshot.KeyOf(object)).FirstSeen
	if err := s.review(object, made, ""); err != nil {
		return 0, time.Time{}, err
	}
	if err := s.Store.SetPeerObject(ctx, object); err != nil {
		return 0, time.Time{}, fmt.Errorf("keep the terms of peer %s: %w", name, err)
	}
	s.Wake()
	maxBundleAge, _ = peerrules.MaxBundleAge(object)
	if object.Spec.ExpiresAt != nil {
		expires = object.Spec.ExpiresAt.UTC()
	}
	return maxBundleAge, expires, nil
}
