package agents

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/spiffe"
)

// callerNode is the node behind a call.
func callerNode(ctx context.Context, td spiffe.TrustDomain) (string, error) {
	c, err := door.Of(ctx)
	if err != nil {
		return "", err
	}
	if c.Kind != door.Node || c.ID.TrustDomain() != td {
		return "", status.Errorf(codes.PermissionDenied, "%s is no node of this mesh", c.Actor())
	}
	return c.Name, nil
}
