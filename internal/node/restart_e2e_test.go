//go:build e2e

package node

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/waittest"
)

// TestHelperAgent is the agent as a process of its own, when startAgent starts it.
func TestHelperAgent(t *testing.T) {
	path := os.Getenv("ISTHMUS_TEST_AGENT")
	if path == "" {
		return
	}
	cfg, err := LoadConfig(path)
	must(t, err)
	a, err := New(cfg)
	must(t, err)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	must(t, a.Run(ctx))
}

// startAgent runs an agent as a process of its own.
func startAgent(t *testing.T, settings string) *exec.Cmd {
	t.Helper()
	agent := exec.Command(os.Args[0], "-test.run=^TestHelperAgent$")
	agent.Env = append(os.Environ(), "ISTHMUS_TEST_AGENT="+settings)
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, agent.Start())
	t.Cleanup(func() { end(agent, syscall.SIGKILL) })
	cfg, err := LoadConfig(settings)
	must(t, err)
	awaitSocket(cfg.RunDir)
	return agent
}

func end(agent *exec.Cmd, how syscall.Signal) {
	_ = agent.Process.Signal(how)
	_ = agent.Wait() // what it says is that it was ended
}

// load calls a page over and over, on new connections, until stop says how many calls there were and how they failed.
func load(workers int, call func() error) (stop func() (calls int, failures []error)) {
	var mu sync.Mutex // guards the results
	var calls int
	var failures []error
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range workers {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
				err := call()
				mu.Lock()
				calls++
				if err != nil {
					failures = append(failures, fmt.Errorf("%s: %w", time.Now().Format("05.000"), err))
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		close(done)
		wg.Wait()
		return calls, failures
	}
}

// never fails the test if what must not happen did.
func never(t *testing.T, what string, stop func() (int, []error)) {
	t.Helper()
	calls, failures := stop()
	t.Logf("%s: %d calls, %d failures", what, calls, len(failures))
	if calls == 0 || len(failures) > 0 {
		t.Errorf("%s: %d of %d failed: %v", what, len(failures), calls,
			errors.Join(failures[:min(len(failures), 20)]...))
	}
}

// noPlaintext calls past the mesh until stop: whoever is answered heard plaintext.
func (p *pair) noPlaintext() (stop func() (int, []error)) {
	return load(1, func() error { return notHeard(p.web, "http://10.79.0.3:8080/") })
}

// names asks for the address of a service, over and over, each time once: while no agent runs the question waits for
// the next one, and so does one that the agent had read when it was killed.
func (p *pair) names() (stop func() (int, []error)) {
	const pay = "pay.default.svc.cluster.local."
	return load(2, func() error {
		r, err := ask(p.web, "udp", pay, dns.TypeA)
		if err == nil && len(r.Answer) != 1 {
			err = errors.New(dns.RcodeToString[r.Rcode])
		}
		return err
	})
}

// notHeard calls past the mesh.
func notHeard(ns, url string) error {
	if body, err := get(ns, url); err == nil {
		return fmt.Errorf("plaintext answered %q", body)
	}
	return nil
}

// long is one connection that carries a request now and then.
type long struct {
	conn net.Conn
	buf  []byte
}

func (p *pair) long(t *testing.T) *long {
	t.Helper()
	conn, err := dialIn(p.web, "tcp", "240.240.0.1:80")
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &long{conn: conn, buf: make([]byte, 4096)}
}

func (l *long) ask() error {
	if err := l.conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(l.conn, "GET / HTTP/1.1\r\nHost: pay\r\n\r\n"); err != nil {
		return err
	}
	_, err := l.conn.Read(l.buf)
	return err
}

func TestEnvoyOutlivesTheAgent(t *testing.T) {
	p := newPair(t, "outlives")
	settings := p.file(t)
	agent := startAgent(t, settings)
	eventually(t, 10*time.Second, "a call", p.call)
	pid := pidIn(t, p.cfg.RunDir)
	kept := p.long(t)
	must(t, kept.ask())
	calls, names, plain := load(4, p.call), p.names(), p.noPlaintext()
	for range 3 {
		streams := p.control.streamCount()
		t.Logf("killed at %s", time.Now().Format("05.000"))
		end(agent, syscall.SIGKILL)
		waits := make(chan error, 1)
		go func() {
			_, err := askOnce(p.web, "udp", "pay.default.svc.cluster.local.", dns.TypeA, 15*time.Second)
			waits <- err
		}()
		waittest.Pace(300 * time.Millisecond)
		must(t, kept.ask())
		t.Logf("started at %s", time.Now().Format("05.000"))
		agent = startAgent(t, settings)
		if err := <-waits; err != nil {
			t.Errorf("a question that was asked while no agent ran, and once: %v", err)
		}
		eventually(t, 10*time.Second, "Envoy is back at the control plane", func() error {
			if p.control.streamCount() == streams {
				return fmt.Errorf("%d streams", streams)
			}
			return nil
		})
	}
	waittest.Quiet(500 * time.Millisecond)
	must(t, kept.ask())
	never(t, "calls through three deaths of the agent", calls)
	never(t, "names asked through three deaths of the agent", names)
	never(t, "plaintext", plain)
	if now := pidIn(t, p.cfg.RunDir); now != pid {
		t.Errorf("Envoy is process %d, was %d", now, pid)
	}
	t.Run("the next agent notices its death", func(t *testing.T) {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		eventually(t, 10*time.Second, "a call after Envoy was killed", p.call)
		if now := pidIn(t, p.cfg.RunDir); now == pid {
			t.Error("Envoy was not started again")
		}
	})
	t.Run("an agent that is told to stop ends it", func(t *testing.T) {
		pid := pidIn(t, p.cfg.RunDir)
		end(agent, syscall.SIGTERM)
		if err := syscall.Kill(pid, 0); err == nil {
			t.Error("Envoy lives")
		}
		if body, err := get(p.web, "http://10.79.0.3:8080/"); err == nil {
			t.Errorf("plaintext passed: %q", body)
		}
	})
}

func TestEnvoyIsKeptOnStop(t *testing.T) {
	p := newPair(t, "kept")
	p.cfg.Envoy.KeepOnStop = true
	a, stop := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	pid := envoyPID(t, a)
	calls, names := load(2, p.call), p.names()
	must(t, a.proxies[0].envoy.Drain(t.Context())) // as an agent that is killed while it leaves
	stop()
	must(t, p.call())
	a, stop = runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "Envoy is back", func() error { return p.call() })
	eventually(t, 10*time.Second, "Envoy does not drain any more",
		func() error { return a.proxies[0].envoy.Ready(t.Context()) })
	waittest.Quiet(300 * time.Millisecond)
	never(t, "calls through a restart", calls)
	never(t, "names asked through a restart", names)
	if now := envoyPID(t, a); now != pid {
		t.Errorf("Envoy is process %d, was %d", now, pid)
	}
	stop()
	t.Run("one of another bootstrap is replaced", func(t *testing.T) {
		p.cfg.Envoy.MaxConnections = 1000
		runAgent(t, p.cfg)
		eventually(t, 10*time.Second, "another Envoy", func() error {
			if envoyPID(t, a) == pid {
				return errors.New("the old pid")
			}
			return p.call()
		})
	})
}

func TestEnvoyOfAnotherProcessIsLeftAlone(t *testing.T) {
	p := newPair(t, "reused")
	p.cfg.Envoy.KeepOnStop = true
	a, stop := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	stop()
	pid := envoyPID(t, a)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	// The number went to a stranger since.
	stranger := exec.Command("sleep", "60")
	must(t, stranger.Start())
	t.Cleanup(func() { stranger.Process.Kill(); stranger.Wait() })
	path := filepath.Join(p.cfg.RunDir, "envoy.pid")
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(text), fmt.Sprint(pid), fmt.Sprint(stranger.Process.Pid),
		1)), 0o600))
	_, stop = runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call through an Envoy of its own", p.call)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was ended: %v", err)
	}
	t.Run("one that is written down nowhere is replaced", func(t *testing.T) {
		stop()
		pid := envoyPID(t, a)
		must(t, os.WriteFile(path, []byte("torn"), 0o600))
		runAgent(t, p.cfg)
		eventually(t, 10*time.Second, "another Envoy", func() error {
			if now, err := os.ReadFile(path); err != nil || strings.HasPrefix(string(now), "torn") ||
				strings.HasPrefix(string(now), fmt.Sprintln(pid)) {
				return fmt.Errorf("process %q is written down, it was %d: %v", now, pid, err)
			}
			return p.call()
		})
	})
}
