package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command is a program to run in a network namespace.
type Command struct {
	Name      string // of its log
	Namespace string
	Resolv    string // file to mount as /etc/resolv.conf; empty for the host's
	Path      string
	Args      []string
	Env       []string // added to this process's environment
	// Stdin defaults to no input, Stdout to the log.
	Stdin  io.Reader
	Stdout io.Writer
}

// Process is a started Command.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // set before done is closed
}

// Start runs a command in the lab. It is killed when this process ends for any reason.
func (l *Lab) Start(c Command) (*Process, error) {
	p, err := l.run(c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	id, err := identify(p.cmd.Process.Pid)
	if err != nil { // already ended: nothing to record
		return p, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = append(l.running, p)
	l.record.Processes = append(l.record.Processes, id)
	return p, l.record.write(l.cfg.Dir)
}

// Run runs a short command in the lab to completion, without recording it.
func (l *Lab) Run(c Command) error {
	p, err := l.run(c)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p.Wait()
}

func (l *Lab) run(c Command) (*Process, error) {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout = c.Stdin, c.Stdout
	// A session of its own keeps Ctrl-C from the child, so that shutdown happens in order. It also gives each program
	// an equal scheduler share on a busy machine (sched(7), autogroup), like the agents' Envoys.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, log: l.LogFile(c.Name), done: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = log
	if c.Stdout == nil {
		cmd.Stdout = log
	}
	started := make(chan error, 1)
	// The kernel kills a child when the thread that created it ends, so that thread stays and waits for it.
	go ownThread(func() {
		defer log.Close()
		defer close(p.done)
		err := enter(c.Namespace, c.Resolv)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	})
	return p, <-started
}

// LogFile returns the log of the command with that name.
func (l *Lab) LogFile(name string) string { return filepath.Join(l.cfg.Dir, "logs", name+".log") }

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end. Its error includes the last line of the log.
func (p *Process) Wait() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	if last := lastLine(p.log); last != "" {
		return fmt.Errorf("%w: %s", p.err, last)
	}
	return p.err
}

// Stop sends SIGTERM, and SIGKILL after the grace period.
func (p *Process) Stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// Kill kills the process and waits until it is gone.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *Process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		// Cannot happen to a child that has not been waited for; Kill and sweep follow anyway.
		return
	}
}

// lastLine returns the last non-empty line of a file.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
