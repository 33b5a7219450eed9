package envoyproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/procid"
)

const (
	stopWait    = 3 * time.Second // between SIGTERM and SIGKILL, and after that
	maxLogBytes = 16 << 20
)

// process is a running Envoy, whichever agent started it. It is held by a pidfd, which never refers to another process.
type process struct {
	pid   int
	pidfd *os.File
	fds   *fdStore
	child *exec.Cmd // nil when an earlier agent started it
}

// start starts Envoy in a session of its own, so that nothing that ends this process or its terminal ends Envoy.
// Envoy's output goes to a file rather than a pipe, so that it does not depend on this process.
func start(cfg Config, made string) (*process, error) {
	out, err := os.OpenFile(filepath.Join(cfg.RunDir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open Envoy's log: %w", err)
	}
	defer out.Close()
	kept, err := newFDStore()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(cfg.Binary, arguments(cfg)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = kept.extraFiles()
	cmd.Env = []string{} // Envoy needs no environment, and must not see ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if g := cfg.Group; g != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, g.FD()
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start Envoy: %w", err), kept.close())
	}
	p, err := open(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait(), kept.close())
	}
	p.child, p.fds = cmd, kept
	if err := p.setUp(cfg.RunDir, made); err != nil {
		return nil, errors.Join(err, p.stop(), p.close())
	}
	return p, nil
}

// open opens a running process.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (p *process) close() error {
	if p.fds == nil {
		return p.pidfd.Close()
	}
	return errors.Join(p.fds.close(), p.pidfd.Close())
}

// setUp raises Envoy's limit of open files and writes its record.
func (p *process) setUp(runDir, made string) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, nil, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			return fmt.Errorf("lift Envoy's limit of open files: %w", err)
		}
	}
	boot, err := procid.Boot()
	if err != nil {
		return err
	}
	began, err := procid.Start(p.pid)
	if err != nil {
		return fmt.Errorf("look at the Envoy just started: %w", err)
	}
	return record{pid: p.pid, start: began, boot: boot, made: made}.write(runDir)
}

// wait waits until the process has ended, for at most a while (0: forever). It returns early when the process is
// closed.
func (p *process) wait(most time.Duration) error {
	var deadline time.Time
	if most > 0 {
		deadline = time.Now().Add(most)
	}
	if err := p.pidfd.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for Envoy: %w", err)
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for Envoy: %w", err)
	}
	if err := raw.Read(hasEnded); err != nil { // a pidfd is readable once its process has ended
		return fmt.Errorf("wait for Envoy: %w", err)
	}
	return nil
}

func hasEnded(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// errCrash means that the process ended by a fault of Envoy, or may have.
var errCrash = errors.New("it crashed")

// how returns how the process ended. Only its parent learns the details.
func (p *process) how() error {
	if p.child == nil {
		return fmt.Errorf("%w, or was ended", errCrash)
	}
	err := p.child.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return errors.New("it exited by itself")
	case errors.As(err, &exit) && isFault(exit):
		return fmt.Errorf("%w: %s", errCrash, exit)
	case errors.As(err, &exit):
		return fmt.Errorf("it ended: %s", exit)
	}
	return fmt.Errorf("wait for Envoy: %w", err)
}

// isFault reports whether a process ended by a signal that it raised itself, and not by one that somebody sent it.
func isFault(exit *exec.ExitError) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return false
	}
	switch status.Signal() {
	case unix.SIGABRT, unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGTRAP, unix.SIGSYS:
		return true
	}
	return false
}

// stop ends Envoy and waits until it is gone.
func (p *process) stop() error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.signal(signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end Envoy (pid %d): %w", p.pid, err)
		}
		if p.wait(stopWait) == nil {
			_ = p.how() // reaps a child
			return nil
		}
	}
	return fmt.Errorf("process %d, an Envoy, does not end: kill it", p.pid)
}

func (p *process) signal(s unix.Signal) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) }); err != nil {
		return err
	}
	return sent
}

// truncateLog empties Envoy's log when it is too large. Envoy appends, so it continues at the beginning.
func truncateLog(path string) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() < maxLogBytes {
		return err
	}
	return os.Truncate(path, 0)
}
