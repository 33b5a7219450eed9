package standing

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
)

// Judge says why the certificate that a caller showed is not good now: it has ended, its root is withdrawn, or whom it
// was issued to was revoked. A handshake says only what was so then: each call is judged, and what stays open again and
// again.
func (s *Standing) Judge(ctx context.Context, c door.Caller) error {
	switch {
	case c.Certificate == nil:
		return status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	case s.Now().After(c.Certificate.NotAfter):
		return status.Errorf(codes.Unauthenticated, "the certificate of %s ended at %s: connect with a new one", c.ID,
			c.Certificate.NotAfter.UTC())
	case !s.Trusts(c.Certificate.Chains):
		return status.Errorf(codes.Unauthenticated,
			"the certificate of %s leads to a root that this mesh has withdrawn: connect with a new one", c.ID)
	}
	return s.holds(ctx, c.ID, c.Certificate.Generation)
}
