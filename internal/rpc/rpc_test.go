package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type (
	ping struct{ Text string }
	pong struct{ Text string }
)

type server interface {
	Echo(context.Context, *ping) (*pong, error)
	Talk(Stream[pong, ping]) error
}

var desc = grpc.ServiceDesc{
	ServiceName: "test.Echo", HandlerType: (*server)(nil),
	Streams: []grpc.StreamDesc{Unary("Echo", server.Echo), Bidi("Talk", server.Talk)},
}

type echo struct{}

func (echo) Echo(_ context.Context, p *ping) (*pong, error) {
	if p.Text == "" {
		return nil, status.Error(codes.InvalidArgument, "say something")
	}
	return &pong{Text: p.Text}, nil
}

func (echo) Talk(s Stream[pong, ping]) error {
	for {
		p, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&pong{Text: strings.ToUpper(p.Text)}); err != nil {
			return err
		}
	}
}

// dial serves echo on loopback, and notes which methods the interceptors saw.
func dial(t *testing.T) (*grpc.ClientConn, *[]string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	s := grpc.NewServer(grpc.MaxRecvMsgSize(1<<20), grpc.StreamInterceptor(
		func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			seen = append(seen, info.FullMethod)
			return next(srv, ss)
		}))
	s.RegisterService(&desc, echo{})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, &seen
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestUnary(t *testing.T) {
	conn, seen := dial(t)
	got, err := Call[ping, pong](within(t), conn, "test.Echo", "Echo", &ping{Text: "héllo \x00"})
	if err != nil || got.Text != "héllo \x00" {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(*seen) != 1 || (*seen)[0] != "/test.Echo/Echo" {
		t.Errorf("the interceptor saw %v", *seen)
	}
	for what, try := range map[string]struct {
		method string
		text   string
		want   codes.Code
	}{
		"a refusal":      {"Echo", "", codes.InvalidArgument},
		"no such method": {"Nothing", "x", codes.Unimplemented},
		"too long":       {"Echo", strings.Repeat("x", 2<<20), codes.ResourceExhausted},
	} {
		_, err := Call[ping, pong](within(t), conn, "test.Echo", try.method, &ping{Text: try.text})
		if status.Code(err) != try.want {
			t.Errorf("%s: %v, want %s", what, err, try.want)
		}
	}
}

func TestStream(t *testing.T) {
	conn, seen := dial(t)
	ctx, cancel := context.WithCancel(within(t))
	s, err := Open[ping, pong](ctx, conn, "test.Echo", "Talk")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two"} {
		if err := s.Send(&ping{Text: word}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Recv(); err != nil || got.Text != strings.ToUpper(word) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if len(*seen) != 1 || (*seen)[0] != "/test.Echo/Talk" {
		t.Errorf("the interceptor saw %v", *seen)
	}
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("after the end: %v", err)
	}
}

// What does not parse is the caller's error, and nobody's crash.
func TestForeignBytes(t *testing.T) {
	conn, _ := dial(t)
	for _, body := range []string{
		"", "{", "[]", `{"Text":1}`, "\xff\xfe", strings.Repeat("[", 100_000),
		`{"Text":"x"} trailing`,
	} {
		err := conn.Invoke(within(t), "/test.Echo/Echo", &raw{body}, &pong{}, grpc.ForceCodec(rawCodec{}))
		if err == nil {
			t.Errorf("%.20q was taken", body)
		}
		if c := status.Code(err); c != codes.Internal && c != codes.InvalidArgument {
			t.Errorf("%.20q: %v", body, err)
		}
	}
	if _, err := Call[ping, pong](within(t), conn, "test.Echo", "Echo", &ping{Text: "still there"}); err != nil {
		t.Error(err)
	}
}

type raw struct{ body string }

// rawCodec sends bytes as they are and says that they are JSON.
type rawCodec struct{}

func (rawCodec) Name() string                    { return Subtype }
func (rawCodec) Marshal(v any) ([]byte, error)   { return []byte(v.(*raw).body), nil }
func (rawCodec) Unmarshal(_ []byte, _ any) error { return nil }
