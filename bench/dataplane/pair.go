package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/template"
	"time"
)

//go:embed pair/*.tmpl
var pairTemplates embed.FS

// pairValues fill the templates.
type pairValues struct {
	Protocols          []protocol
	Dir, Callee, Host  string
	CallerID, CalleeID string
}

// startPair starts the smallest Envoy pair that does the job: mutual TLS 1.3, exact identities at both ends, hardened paths.
func startPair(ctx context.Context, env environment) (*running, error) {
	if err := writeCertificates(env.dir); err != nil {
		return nil, err
	}
	values := pairValues{
		Protocols: env.protocols, Dir: env.dir, Callee: env.callee.addr, Host: serverHost, CallerID: callerID, CalleeID: calleeID,
	}
	r := &running{target: func(p protocol) string { return port("127.0.0.1", p.Outbound) }}
	for name, h := range map[string]*host{"caller": env.caller, "callee": env.callee} {
		config, err := pairConfig(name, values)
		if err != nil {
			r.stop()
			return nil, err
		}
		e, err := startEnvoy(env, h, name, config)
		if err != nil {
			r.stop()
			return nil, err
		}
		r.envoys = append(r.envoys, e)
	}
	for _, p := range env.protocols {
		if err := answers(ctx, env, p, r.target(p)); err != nil {
			r.stop()
			return nil, err
		}
	}
	return r, nil
}

// pairConfig is the bootstrap of one end.
func pairConfig(end string, values pairValues) ([]byte, error) {
	t, err := template.ParseFS(pairTemplates, "pair/"+end+".yaml.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the %s's template: %w", end, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil {
		return nil, fmt.Errorf("fill the %s's template: %w", end, err)
	}
	return b.Bytes(), nil
}

// envoy is one that runs.
type envoy struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// startEnvoy starts one on a host.
func startEnvoy(env environment, h *host, name string, config []byte) (*envoy, error) {
	file := filepath.Join(env.dir, name+".yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, fmt.Errorf("write %s: %w", file, err)
	}
	log, err := os.Create(filepath.Join(env.dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("create the log of the %s's Envoy: %w", name, err)
	}
	defer log.Close()
	e := &envoy{exited: make(chan struct{})}
	e.cmd = exec.Command(env.envoy, "-c", file, "--concurrency", fmt.Sprint(env.concurrency),
		"--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the bench is killed
	if err := h.start(e.cmd); err != nil {
		return nil, err
	}
	go func() {
		e.cmd.Wait()
		close(e.exited)
	}()
	return e, nil
}

func (e *envoy) stop() {
	e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.exited:
	case <-time.After(3 * time.Second):
		e.cmd.Process.Kill()
		<-e.exited
	}
}

// answers waits until one call through the shape succeeds.
func answers(ctx context.Context, env environment, p protocol, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := p.call(ctx, env.caller.dial, target)
		if err == nil {
			err = c.Call()
			c.Close()
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing answers %s at %s: %w (logs are in %s with --keep)", p.Name, target, err, env.dir)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
