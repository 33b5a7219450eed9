package meshd

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/spiffe"
)

// callerOf is who a call is from.
func callerOf(ctx context.Context) (door.Caller, error) {
	c, ok := door.From(ctx)
	if !ok {
		return door.Caller{}, status.Error(codes.Internal, "the call did not come through the door")
	}
	return c, nil
}

// callerNode is the node behind a call.
func callerNode(ctx context.Context, td spiffe.TrustDomain) (string, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return "", err
	}
	if c.Kind != door.Node || c.ID.TrustDomain() != td {
		return "", status.Errorf(codes.PermissionDenied, "%s is no node of this mesh", c.Actor())
	}
	return c.Name, nil
}
