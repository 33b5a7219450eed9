package rpc

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// short takes messages of at most 1,000 bytes.
type short struct{ grpc.ServerStream }

func (s short) RecvMsg(m any) error {
	return Receive(s.ServerStream, m, 1000, func(int) (func(), error) { return func() {}, nil })
}

// countingListener counts what its connections read.
type countingListener struct {
	net.Listener
	read atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countingConn{c, &l.read}, err
}

type countingConn struct {
	net.Conn
	read *atomic.Int64
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func TestLongMessagesAreNotRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := &countingListener{Listener: l}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.StaticStreamWindowSize(64<<10), grpc.StreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, short{ss})
		}))
	s.RegisterService(&desc, echo{})
	go s.Serve(counted)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	got, err := Call[ping, pong](within(t), conn, "test.Echo", "Echo", &ping{Text: strings.Repeat("x", 900)})
	if err != nil || len(got.Text) != 900 {
		t.Errorf("900 bytes: %v", err)
	}
	_, err = Call[ping, pong](within(t), conn, "test.Echo", "Echo", &ping{Text: strings.Repeat("x", 1000)})
	if status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(err.Error(), "a message of 1011 bytes: at most 1000 are taken here") {
		t.Errorf("1011 bytes: %v", err)
	}
	before := counted.read.Load()
	_, err = Call[ping, pong](within(t), conn, "test.Echo", "Echo", &ping{Text: strings.Repeat("x", 32<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("32 MB: %v", err)
	}
	if read := counted.read.Load() - before; read > 200<<10 {
		t.Errorf("of a message of 32 MB %d bytes were read", read)
	}
	err = conn.Invoke(within(t), "/test.Echo/Echo", &ping{Text: "x"}, &pong{}, grpc.CallContentSubtype(Subtype),
		grpc.UseCompressor(gzip.Name))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a compressed message: %v", err)
	}
}
