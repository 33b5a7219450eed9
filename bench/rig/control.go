// Package rig starts a real control plane on loopback, to be measured, and joins nodes to it.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
)

// Control is a control plane of ours, running as a process of its own.
type Control struct {
	AgentAddress string
	Socket       string // of the administration
	Admin        *grpc.ClientConn

	command []string
	environ []string
	log     *os.File
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	before  time.Duration // CPU of earlier processes
}

// Start starts one on loopback, with its state in dir. Further environment, such as GOMAXPROCS=1, is added to our own,
// of which what tunes Go's runtime is left out.
func Start(binary, dir, configDir string, environment ...string) (*Control, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("no isthmus binary to measure at %s: run `make build` first, or name one with --binary",
			binary)
	}
	ports, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "control.sock")
	settings := fmt.Sprintf(`configDir: %s
stateFile: %s
keyFile: %s
socket: %s
agentAddress: %s
peeringAddress: %s
metricsAddress: %s
healthAddress: %s
`, configDir, filepath.Join(dir, "state.db"), filepath.Join(dir, "state.key"), socket,
		ports[0], ports[1], ports[2], ports[3])
	file := filepath.Join(dir, "control.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		return nil, fmt.Errorf("write the settings: %w", err)
	}
	c := &Control{
		AgentAddress: ports[0], Socket: socket, command: []string{binary, "control", "--config", file},
		environ: append(slices.DeleteFunc(os.Environ(), tunesRuntime), environment...),
	}
	if c.log, err = os.Create(filepath.Join(dir, "control.log")); err != nil {
		return nil, fmt.Errorf("create the log: %w", err)
	}
	if err := c.launch(); err != nil {
		return nil, err
	}
	c.Admin, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 20 * time.Millisecond,
			MaxDelay:  20 * time.Millisecond,
		}}))
	if err != nil {
		c.Stop()
		return nil, fmt.Errorf("reach the administration socket: %w", err)
	}
	return c, nil
}

// tunesRuntime says that a variable tunes Go's runtime: what a shell sets for its builds is not to be measured.
func tunesRuntime(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return name == "GOGC" || name == "GOMEMLIMIT" || name == "GODEBUG" || name == "GOMAXPROCS"
}

func (c *Control) launch() error {
	c.cmd = exec.Command(c.command[0], c.command[1:]...)
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Env = c.log, c.log, c.environ
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the bench is killed
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.command[0], err)
	}
	exited, cmd := make(chan struct{}), c.cmd
	c.exited = exited
	go func() {
		cmd.Wait()
		close(exited)
	}()
	return nil
}

// Restart ends the process and starts it again, with what it left in its folder.
func (c *Control) Restart() error {
	u, err := c.Usage()
	if err != nil {
		return err
	}
	c.before = u.CPU
	c.end()
	return c.launch()
}

// freeAddresses are loopback addresses that nobody listens on at this moment.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// WaitLoaded waits until the control plane has read every object, and refuses any that it finds an error in.
func (c *Control) WaitLoaded(ctx context.Context, objects int) error {
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		st, err := adminapi.Call[adminapi.Empty, adminapi.StatusResponse](call, c.Admin, "Status", &adminapi.Empty{})
		cancel()
		if err == nil {
			for _, f := range st.Findings {
				if f.Severity == finding.Error {
					return fmt.Errorf("the control plane refuses the generated configuration: %s", f)
				}
			}
			if st.Objects == objects {
				return nil
			}
			err = fmt.Errorf("it has read %d of %d objects", st.Objects, objects)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the control plane is ready: %w", errors.Join(ctx.Err(), err))
		case <-c.exited:
			return errors.New("the control plane ended by itself")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the process and all use of it.
func (c *Control) Stop() {
	if c.Admin != nil {
		c.Admin.Close()
	}
	c.end()
	c.log.Close()
}

// end ends the process, by force when asking does not help.
func (c *Control) end() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(5 * time.Second):
		c.cmd.Process.Kill()
		<-c.exited
	}
}

// LogTail are the last lines of its log.
func (c *Control) LogTail() string {
	text, err := os.ReadFile(c.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Usage is what the process has cost so far, with the CPU of those before it.
func (c *Control) Usage() (proc.Usage, error) {
	u, err := proc.Read(c.cmd.Process.Pid)
	u.CPU += c.before
	return u, err
}
