package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// maxMessage bounds one message from the control plane, many times a whole proxy configuration.
const maxMessage = 64 << 20

// dial makes a connection that tries all addresses of the control plane in turn, for as long as it exists. Calls wait
// until it is up.
func (c *Client) dial(addresses []string, conf *tls.Config) (*grpc.ClientConn, error) {
	if len(addresses) == 0 {
		return nil,
			errors.New("control.addresses is empty and the token names none: write where the control plane listens, for example 10.0.0.1:15012")
	}
	found := manual.NewBuilderWithScheme("isthmus")
	var state resolver.State
	for _, a := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	found.InitialState(state)
	conn, err := grpc.NewClient("isthmus:///control",
		grpc.WithResolvers(found),
		grpc.WithAuthority("control"),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithContextDialer(c.connect),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.4, MaxDelay: 3 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to the control plane: %w", err)
	}
	return conn, nil
}

// connect detects a silently lost control plane within 15 seconds, and one that returned within a second.
func (c *Client) connect(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 15},
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) { err = c.setOptions(int(fd)) }); e != nil {
				return e
			}
			return err
		},
	}
	return d.DialContext(ctx, "tcp", address)
}

func (c *Client) setOptions(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 15_000); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}

// waitReady waits a while for a new connection to come up; it is used either way.
func waitReady(ctx context.Context, conn *grpc.ClientConn, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	conn.Connect()
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		if !conn.WaitForStateChange(ctx, s) {
			return
		}
	}
}
