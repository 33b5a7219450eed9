package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Proof authenticates a new connection. The connection that it returns is the one to serve.
type Proof func(ctx context.Context, raw net.Conn) (net.Conn, Caller, error)

// ByTLS authenticates by the client certificate. A client without one is a Stranger.
func ByTLS(cfg *tls.Config) Proof {
	return func(ctx context.Context, raw net.Conn) (net.Conn, Caller, error) {
		from, err := netip.ParseAddrPort(raw.RemoteAddr().String())
		if err != nil {
			return nil, Caller{}, fmt.Errorf("where it comes from: %w", err)
		}
		conn := tls.Server(raw, cfg)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, Caller{}, err
		}
		c, err := Identify(from.Addr().Unmap(), conn.ConnectionState())
		if at, failed := netip.ParseAddrPort(raw.LocalAddr().String()); failed == nil {
			c.At = at.Addr().Unmap()
		}
		return conn, c, err
	}
}

// NoProof treats every caller as a Stranger.
func NoProof(_ context.Context, raw net.Conn) (net.Conn, Caller, error) {
	from, err := netip.ParseAddrPort(raw.RemoteAddr().String())
	return raw, Caller{Kind: Stranger, Addr: from.Addr().Unmap()}, err
}

// ByKernel asks the kernel for the user at the other end of a Unix socket (SO_PEERCRED, unix(7)). It admits root and
// the user of this process.
func ByKernel(_ context.Context, raw net.Conn) (net.Conn, Caller, error) {
	c, ok := raw.(syscallConn)
	if !ok {
		return nil, Caller{}, fmt.Errorf("a %T is no Unix socket", raw)
	}
	sys, err := c.SyscallConn()
	if err != nil {
		return nil, Caller{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = sys.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return nil, Caller{}, fmt.Errorf("ask the kernel who connected: %w", err)
	}
	caller := Caller{Kind: Local, UID: int(cred.Uid), PID: int(cred.Pid), Name: userName(int(cred.Uid))}
	if caller.UID != 0 && caller.UID != os.Geteuid() {
		return nil, Caller{}, fmt.Errorf("%s may not use this socket", caller.Actor())
	}
	return raw, caller, nil
}

// userName is only for display; uid is the identity.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "without a name"
}
