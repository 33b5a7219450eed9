package workloadapi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/unixsocket"
)

var errExited = errors.New("the process that connected has exited")

// caller is the process that opened a connection, as the kernel reports it.
type caller struct {
	pid int32
	uid uint32
	// proc is the process's folder in /proc. It refers to that process only, even when its number is reused.
	proc *os.File
}

// identify returns the process that opened a connection, which was accepted at this time since boot.
//
// After connecting, the process may have exited and its PID may have been reused. If the kernel has SO_PEERPIDFD (6.5),
// the descriptor shows that. On an older kernel, a process that started after the connection is refused.
func identify(c *net.UnixConn, accepted time.Duration) (*caller, error) {
	cred, err := unixsocket.Peer(c)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		pidfd    int
		pidfdErr error
	)
	if err := raw.Control(func(fd uintptr) {
		pidfd, pidfdErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return nil, fmt.Errorf("ask the kernel who connected: %w", err)
	}
	switch {
	case pidfdErr == nil:
		defer unix.Close(pidfd)
	case errors.Is(pidfdErr, unix.ENOPROTOOPT):
		pidfd = noPidfd
	case errors.Is(pidfdErr, unix.ESRCH), errors.Is(pidfdErr, unix.ENODATA):
		return nil, errExited
	default:
		return nil, fmt.Errorf("ask the kernel for the process that connected: %w", pidfdErr)
	}
	return find(cred, pidfd, accepted)
}

// noPidfd stands for the descriptor that an older kernel lacks.
const noPidfd = -1

// find opens the process's folder and makes sure that it belongs to the process that connected.
func find(cred *unix.Ucred, pidfd int, accepted time.Duration) (*caller, error) {
	if cred.Pid <= 0 {
		return nil,
			errors.New("the caller is in a PID namespace that the agent cannot see: run the agent in the host's")
	}
	path := "/proc/" + strconv.Itoa(int(cred.Pid))
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, errExited
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c := &caller{pid: cred.Pid, uid: cred.Uid, proc: os.NewFile(uintptr(fd), path)}
	// Check only now: if the process is still alive, its number was not reused before its folder was opened.
	if pidfd != noPidfd {
		err = checkAlive(pidfd)
	} else {
		err = c.beganBefore(accepted)
	}
	if err != nil {
		c.proc.Close()
		return nil, err
	}
	return c, nil
}

// checkAlive reports whether the process behind a pidfd has not exited.
func checkAlive(pidfd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("poll the process that connected: %w", err)
		case n > 0:
			return errExited
		default:
			return nil
		}
	}
}

// tick is the unit of times in /proc, USER_HZ, which Linux shows as 100 a second everywhere.
const tick = 10 * time.Millisecond

// beganBefore refuses a process that is younger than its connection.
func (c *caller) beganBefore(accepted time.Duration) error {
	text := make([]byte, 1024)
	n, err := c.at("stat", func(dir int) (int, error) {
		fd, err := unix.Openat(dir, "stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return unix.Read(fd, text)
	})
	if err != nil {
		return err
	}
	began, err := startTime(text[:n])
	if err != nil {
		return err
	}
	if began > accepted {
		return errExited
	}
	return nil
}

// startTime reads field 22 of /proc/<pid>/stat: the time since boot at which the process began, rounded down.
func startTime(stat []byte) (time.Duration, error) {
	const afterName = 22 - 3 // the name, field 2, ends at the last parenthesis
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= afterName {
		return 0, errors.New("read when the caller began: /proc shows no start time")
	}
	ticks, err := strconv.ParseInt(string(fields[afterName]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read when the caller began: %w", err)
	}
	return time.Duration(ticks) * tick, nil
}

// sinceBoot returns now, on the clock of /proc's start times.
func sinceBoot() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// isOf returns why the caller is not the workload; nil when it is. It is checked again before each answer.
func (c *caller) isOf(w *Workload) error {
	if len(w.Users) > 0 && !slices.Contains(w.Users, c.uid) {
		return fmt.Errorf("user %d is not one of workloadSocket.users", c.uid)
	}
	path := w.Netns
	if path == "" {
		path = netns.OwnPath
	}
	ns, err := netns.Open(path) // open while both are compared: an inode in use is nobody else's
	if err != nil {
		return err
	}
	defer ns.Close()
	var own, its unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &own); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if _, err := c.at("ns/net", func(dir int) (int, error) {
		return 0, unix.Fstatat(dir, "ns/net", &its, 0)
	}); err != nil {
		return err
	}
	if own.Dev != its.Dev || own.Ino != its.Ino {
		return errors.New("the process is not in the workload's network namespace")
	}
	return nil
}

// at reads something in the process's folder.
func (c *caller) at(what string, read func(dir int) (int, error)) (n int, err error) {
	raw, err := c.proc.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { n, err = read(int(fd)) }); e != nil {
		return 0, e
	}
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT):
		return 0, errExited
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return 0, fmt.Errorf("read %s/%s: not permitted; run the agent as root or with CAP_SYS_PTRACE: %w",
			c.proc.Name(), what, err)
	case err != nil:
		return 0, fmt.Errorf("read %s/%s: %w", c.proc.Name(), what, err)
	}
	return n, nil
}
