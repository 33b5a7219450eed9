// Package netns runs code inside another network namespace: a socket that is opened there stays there.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OwnPath leads to the namespace of this process, from any thread that is not inside Do. The process's first thread may
// be: so /proc/self will not do.
const OwnPath = "/proc/thread-self/ns/net"

// Do runs fn on a thread that is inside the network namespace at path, and then moves the thread back.
// fn must not start goroutines that open sockets. An empty path means the process's own namespace.
func Do(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := Open(path)
	if err != nil {
		return err
	}
	defer target.Close()

	runtime.LockOSThread()
	home, err := os.Open(OwnPath)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the thread's own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return enterError(path, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked: the runtime destroys it with its goroutine rather than lend it to others.
		return errors.Join(err, fmt.Errorf("leave network namespace %s: %w", path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Open opens the namespace at path and makes sure that it is one.
func Open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil,
			fmt.Errorf("network namespace %s does not exist; make it first (ip netns add NAME makes /run/netns/NAME): %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC {
		st, err := f.Stat()
		f.Close()
		if err == nil && st.Mode().IsRegular() && st.Size() == 0 {
			return nil, fmt.Errorf("%s: %w", path, ErrUnmounted)
		}
		return nil,
			fmt.Errorf("%s is a file but not a network namespace; it may be the leftover of one that was removed: delete it and make the namespace again", path)
	}
	return f, nil
}

// CheckStable makes sure that a path goes on leading to the same namespace: one through a process's entry in /proc
// leads to that of whichever process has the number next.
func CheckStable(path string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, path,
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s leads to the network namespace of a process, by a number that another process has next: "+
			"give the namespace a name of its own (ip netns attach NAME PID makes /run/netns/NAME) and write that",
			path)
	case err != nil:
		return fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	return unix.Close(fd)
}

// ErrUnmounted is the error of Open for an empty file, on which a namespace is about to be mounted, or was once.
var ErrUnmounted = errors.New("no network namespace is mounted here (yet); if nobody is making one, delete the file and make the namespace again (ip netns)")

// IsAbsent reports whether an error of Open means that there is no namespace yet, rather than that something is wrong.
func IsAbsent(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrUnmounted) }

// Inode identifies the namespace at path: one that is made again under the same path has another, provided that the
// former is still held by somebody: an open file, a socket. The kernel gives numbers out again.
func Inode(path string) (uint64, error) {
	if path == "" {
		path = OwnPath
	}
	f, err := Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Ino, nil
}

func enterError(path string, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("enter network namespace %s: not permitted; run as root or with CAP_SYS_ADMIN and CAP_NET_ADMIN: %w", path, err)
	}
	return fmt.Errorf("enter network namespace %s: %w", path, err)
}
