package rpc

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// wire is what gRPC's streams offer beyond their interface: a message's header can be read before its body.
// TestLongMessagesAreNotRead fails if a later gRPC version changes this.
type wire interface {
	ReadMessageHeader(head []byte) error
	Read(n int) (mem.BufferSlice, error)
	ContentSubtype() string
}

// Receive reads the next message of a call into m if it has at most limit bytes and admit, which may block, grants room
// for it. Otherwise it does not read the body, and flow control keeps the sender within gRPC's window of 64 KB. It
// returns io.EOF at the end of the stream.
func Receive(ss grpc.ServerStream, m any, limit int, admit func(bytes int) (release func(), err error)) error {
	s, ok := grpc.ServerTransportStreamFromContext(ss.Context()).(wire)
	if !ok {
		return status.Error(codes.Internal, "the length of messages cannot be bounded here")
	}
	var head [5]byte // gRPC over HTTP/2: compressed flag, then length
	if err := s.ReadMessageHeader(head[:]); err != nil {
		return readError(ss, err)
	}
	if head[0] != 0 {
		return status.Error(codes.Unimplemented, "compressed messages are not taken here")
	}
	n := binary.BigEndian.Uint32(head[1:])
	if int64(n) > int64(limit) {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes: at most %d are taken here", n, limit)
	}
	release, err := admit(int(n))
	if err != nil {
		return err
	}
	defer release()
	data, err := s.Read(int(n))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return readError(ss, err)
	}
	defer data.Free()
	name := s.ContentSubtype()
	if name == "" {
		name = proto.Name
	}
	codec := encoding.GetCodecV2(name)
	if codec == nil {
		return status.Errorf(codes.Unimplemented, "messages of type %.40q are not understood", name)
	}
	if err := codec.Unmarshal(data, m); err != nil {
		return status.Errorf(codes.InvalidArgument, "the message is not what it should be: %v", err)
	}
	return nil
}

func readError(ss grpc.ServerStream, err error) error {
	switch ended := ss.Context().Err(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case ended != nil:
		return status.FromContextError(ended).Err()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return status.Error(codes.InvalidArgument, "the message ended early")
	}
	return status.Error(codes.Unavailable, err.Error())
}
