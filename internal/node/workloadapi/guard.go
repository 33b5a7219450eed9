package workloadapi

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// securityHeader must come with every call (SPIFFE Workload Endpoint §3): an attacker who tricks a workload into
// sending requests can seldom choose their headers.
const securityHeader = "workload.spiffe.io"

func guardUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := requireHeader(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func guardStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := requireHeader(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// requireHeader lets only calls of the workload itself pass, and only with the header.
func requireHeader(ctx context.Context) error {
	c := connOf(ctx)
	if c == nil {
		return status.Error(codes.PermissionDenied, "the caller is not known")
	}
	if c.refuse != nil {
		return c.denied(c.refuse)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get(securityHeader), []string{"true"}) {
		return status.Error(codes.InvalidArgument,
			"the header workload.spiffe.io: true is missing: use a SPIFFE Workload API client, which sends it")
	}
	return nil
}

// denied tells a caller only that it is refused; the log has the reason.
func (c *conn) denied(why error) error {
	c.recordRefusal(why)
	return status.Errorf(codes.PermissionDenied,
		"this socket is for workload %s, and the caller is not it: the agent's log says why", c.served.Name)
}
