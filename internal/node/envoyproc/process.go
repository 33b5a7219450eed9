package envoyproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pidFile     = "envoy.pid"
	stopWait    = 3 * time.Second // between SIGTERM and SIGKILL
	maxLogBytes = 16 << 20
)

// process is a running Envoy, however it came to run.
type process struct {
	pid  int
	done chan error // receives how it ended
}

// start starts Envoy on a thread that stays for as long as Envoy runs: the kernel ends Envoy when that thread ends, and so
// when the agent does, in whatever way. What Envoy prints goes to its log file, not to a pipe, so that nothing of it
// depends on this process.
func start(cfg Config) (*process, error) {
	out, err := os.OpenFile(filepath.Join(cfg.RunDir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open Envoy's log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(cfg.Binary, arguments(cfg)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{} // Envoy needs none, and what is in ours is not its business
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- ended(cmd.Wait())
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	p := &process{pid: cmd.Process.Pid, done: done}
	if err := p.settle(cfg.RunDir); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// settle lifts Envoy's limit of open files and writes its pid down.
func (p *process) settle(runDir string) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, nil, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			return fmt.Errorf("lift Envoy's limit of open files: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(runDir, pidFile), []byte(strconv.Itoa(p.pid)+"\n"), 0o600); err != nil {
		return fmt.Errorf("write Envoy's pid: %w", err)
	}
	return nil
}

// stop ends Envoy and waits until it is gone.
func (p *process) stop() {
	_ = syscall.Kill(p.pid, syscall.SIGTERM) // an error means that it is gone already
	select {
	case <-p.done:
		return
	case <-time.After(stopWait):
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
}

func ended(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return errors.New("it exited by itself")
	case errors.As(err, &exit):
		return fmt.Errorf("it ended: %s", exit)
	}
	return fmt.Errorf("wait for Envoy: %w", err)
}

// endLeftover ends an Envoy that an earlier agent left behind in the same run directory.
func endLeftover(runDir string) error {
	text, err := os.ReadFile(filepath.Join(runDir, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Envoy's pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !isOurs(pid, runDir) {
		return nil // the number is nobody's, or somebody else's by now
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("end the Envoy (pid %d) that an earlier agent left: %w", pid, err)
	}
	for range 100 {
		if !isOurs(pid, runDir) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the Envoy (pid %d) that an earlier agent left does not end: kill it", pid)
}

func isOurs(pid int, runDir string) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(args, []byte("\x00"+filepath.Join(runDir, bootstrapFile)+"\x00"))
}

// boundLog empties Envoy's log when it grew too large; Envoy appends, so it goes on at the beginning.
func boundLog(path string) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() < maxLogBytes {
		return err
	}
	return os.Truncate(path, 0)
}
