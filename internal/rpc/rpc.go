// Package rpc carries plain Go structs as gRPC messages. It provides a JSON codec and typed method descriptors, so that
// Isthmus's own services need no generated code and share one port, TLS configuration and interceptor chain with xDS.
package rpc

import (
	"context"
	"encoding/json"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// Subtype is the gRPC content subtype; the content type is application/grpc+json.
const Subtype = "json"

func init() { encoding.RegisterCodecV2(codec{}) } // gRPC finds codecs only in this registry

type codec struct{}

func (codec) Name() string { return Subtype }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	return json.Unmarshal(data.Materialize(), v)
}

// Unary describes a unary method of a service implemented by S. The server handles it as a stream with one message from
// the client, which is identical on the wire. Only stream interceptors run before a message is read, and so can limit
// it (Receive).
func Unary[S, Req, Resp any](method string, call func(S, context.Context, *Req) (*Resp, error)) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName: method, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			req := new(Req)
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			resp, err := call(srv.(S), stream.Context(), req)
			if err != nil {
				return err
			}
			return stream.SendMsg(resp)
		},
	}
}

// Stream is a bidirectional stream that receives Recv and sends Send messages.
type Stream[Send, Recv any] struct{ raw rawStream }

type rawStream interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// Context returns the stream's context.
func (s Stream[Send, Recv]) Context() context.Context { return s.raw.Context() }

// Send sends one message. It must not be called concurrently.
func (s Stream[Send, Recv]) Send(m *Send) error { return s.raw.SendMsg(m) }

// Recv waits for one message. It must not be called concurrently.
func (s Stream[Send, Recv]) Recv() (*Recv, error) {
	m := new(Recv)
	if err := s.raw.RecvMsg(m); err != nil {
		return nil, err
	}
	return m, nil
}

// Bidi describes a bidirectional method: the server receives Req and sends Resp.
func Bidi[S, Req, Resp any](method string, serve func(S, Stream[Resp, Req]) error) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName: method, ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error { return serve(srv.(S), Stream[Resp, Req]{stream}) },
	}
}

// Call makes a unary call. Errors are gRPC status errors.
func Call[Req, Resp any](
	ctx context.Context, conn grpc.ClientConnInterface, service, method string, req *Req,
) (*Resp, error) {
	resp := new(Resp)
	if err := conn.Invoke(ctx, "/"+service+"/"+method, req, resp, grpc.CallContentSubtype(Subtype)); err != nil {
		return nil, err
	}
	return resp, nil
}

// Open opens a bidirectional stream: the client sends Req and receives Resp.
func Open[Req, Resp any](
	ctx context.Context, conn grpc.ClientConnInterface, service, method string,
) (Stream[Req, Resp], error) {
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: true}
	s, err := conn.NewStream(ctx, desc, "/"+service+"/"+method, grpc.CallContentSubtype(Subtype))
	if err != nil {
		return Stream[Req, Resp]{}, err
	}
	return Stream[Req, Resp]{s}, nil
}
