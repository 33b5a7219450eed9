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

// Proof finds out who has connected. What it returns is what is served.
type Proof func(ctx context.Context, raw net.Conn) (net.Conn, Caller, error)

// ByTLS proves by the client's certificate, or that there is none.
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

// Plainly serves whoever connects, as a stranger.
func Plainly(_ context.Context, raw net.Conn) (net.Conn, Caller, error) {
	from, err := netip.ParseAddrPort(raw.RemoteAddr().String())
	return raw, Caller{Kind: Stranger, Addr: from.Addr().Unmap()}, err
}

// ByKernel asks the kernel which user is at the other end of a Unix socket (SO_PEERCRED, unix(7)), and lets in root and
// the user that this process runs as.
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

// userName is for people to read: who it is says the number.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "without a name"
}
