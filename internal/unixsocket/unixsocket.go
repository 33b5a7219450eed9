// Package unixsocket opens Unix sockets that other users cannot impersonate: their parent directories are writable only
// by root and this user.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is the maximum length of a Unix socket's path.
const MaxPath = 107

// Check returns an error if a path is not usable for a socket.
func Check(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty: name a file")
	case path[0] == '@' || strings.ContainsRune(path, 0):
		return fmt.Errorf("%q is an abstract name, which has no owner and no mode, so that every user of this host "+
			"could take it or connect to it: name a file, such as /run/isthmus/control/control.sock", path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is not an absolute path: where it is would depend on the working folder", path)
	case len(path) > MaxPath:
		return fmt.Errorf("the path has %d characters and Linux allows %d: choose a shorter one", len(path), MaxPath)
	}
	return nil
}

// Listen opens a socket, which has the mode from its creation on. It creates the parent directory if needed. It
// replaces a socket left by a process that has ended. Anything else at the path is an error and is left alone.
func Listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	if err := onlyOurs(dir); err != nil {
		return nil, err
	}
	if err := MakeRoom(path); err != nil {
		return nil, err
	}
	l, err := bind(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on a Unix socket: %w", err)
	}
	if err := os.Chmod(path, mode.Perm()); err != nil { // adds the bits that the umask removed
		l.Close()
		return nil, fmt.Errorf("set the mode of the socket: %w", err)
	}
	return l, nil
}

// bind creates the socket with a mode, less the umask: the kernel takes the mode of the unbound socket.
func bind(path string, mode os.FileMode) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// MakeRoom removes a socket left by a process that has ended, and nothing else.
func MakeRoom(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("something serves at %s already: stop it, or choose another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old socket: %w", err)
	}
	return nil
}

// onlyOurs refuses a directory in which other users could replace the socket.
func onlyOurs(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("follow %s: %w", dir, err)
	}
	for ; ; real = filepath.Dir(real) {
		var st unix.Stat_t
		if err := unix.Lstat(real, &st); err != nil {
			return fmt.Errorf("stat %s: %w", real, err)
		}
		others := st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0
		if others || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			return fmt.Errorf("%s can be written by others (user %d, mode %#o): they could put a socket of their own "+
				"in place of this one; choose a path below folders of root alone",
				real, st.Uid, st.Mode&0o7777)
		}
		if real == filepath.Dir(real) {
			return nil
		}
	}
}

// Peer returns the process at the other end of a connection, with its user and group when it connected (SO_PEERCRED,
// unix(7)).
func Peer(c syscall.Conn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("ask the kernel who connected: %w", err)
	}
	return cred, nil
}
