package standing

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
)

// Judge returns why a caller's certificate is not valid now: it has expired, its root was withdrawn, or its owner was
// revoked. A handshake checks only the state at its time, so each call is judged, and open connections repeatedly.
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
