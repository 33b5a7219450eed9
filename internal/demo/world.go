package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
)

// world is the running demo.
type world struct {
	plan    plan
	lab     *lab.Lab
	files   files
	options Options

	mu        sync.Mutex // guards processes
	processes map[string]*lab.Process
}

// Process names on the two hosts of a mesh. Workloads are "<mesh>-<workload>".
func controlName(m mesh) string             { return m.name + "-control" }
func nodeName(m mesh) string                { return m.name + "-node" }
func gatewayName(m mesh) string             { return m.name + "-gateway" }
func programName(m mesh, w workload) string { return m.name + "-" + w.name }

func (w *world) admin(m mesh) admin { return admin{mesh: m.name, socket: w.files.socket(m.name)} }

// up starts both meshes in parallel and waits until everything is ready.
func (w *world) up(ctx context.Context, say printer) error {
	for _, m := range w.plan.meshes {
		if err := w.write(m); err != nil {
			return err
		}
		for _, wl := range m.workloads {
			if err := w.startProgram(m, wl); err != nil {
				return err
			}
		}
	}
	say.step("starting two control planes, two nodes and two gateways")
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range w.plan.meshes {
		g.Go(func() error {
			if err := w.startMesh(ctx, m); err != nil {
				return err
			}
			if err := retry.Until(ctx, 30*time.Second, 50*time.Millisecond,
				func(ctx context.Context) error { return w.ready(ctx, m) }); err != nil {
				return fmt.Errorf("mesh %s does not become ready: %w", m.name, err)
			}
			say.step("mesh %s is ready: %d workloads, one node Envoy, one gateway Envoy", m.name, len(m.workloads))
			return nil
		})
	}
	return g.Wait()
}

func (w *world) startMesh(ctx context.Context, m mesh) error {
	if err := w.startControl(ctx, m); err != nil {
		return err
	}
	return errors.Join(
		w.startAgent(ctx, m, nodeName(m), "node", w.plan.hostNetns(m), adminapi.TokenRequest{
			Node: nodeName(m), Role: snapshot.RoleNode, Workloads: grants(m), Addresses: m.inside(),
			TTL: 5 * time.Minute,
		}),
		w.startAgent(ctx, m, gatewayName(m), "gateway", w.plan.gatewayNetns(m), adminapi.TokenRequest{
			Node: gatewayName(m), Role: snapshot.RoleGateway,
			Identities: []string{"isthmus-system/" + gatewayServiceAccount},
			Addresses:  append(m.inside(), netip.PrefixFrom(m.outer, m.outer.BitLen())), TTL: 5 * time.Minute,
		}),
	)
}

// grants returns what a mesh's node may host: exactly its workloads.
func grants(m mesh) (out []grant.Workload) {
	for _, w := range m.workloads {
		out = append(out, grant.Workload{
			Namespace: "default", Name: w.name, ServiceAccount: w.app, Labels: map[string]string{"app": w.app},
		})
	}
	return out
}

// inside returns the mesh's inner subnet.
func (m mesh) inside() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(m.host, innerBits).Masked()}
}

// startControl starts a control plane and waits until it answers.
func (w *world) startControl(ctx context.Context, m mesh) error {
	p, err := w.start(lab.Command{
		Name: controlName(m), Namespace: w.plan.hostNetns(m), Path: w.options.Isthmus,
		Args: []string{"control", "--config", w.files.mesh(m.name, "control.yaml")},
	})
	if err != nil {
		return err
	}
	return retry.Until(ctx, 20*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		select {
		case <-p.Done():
			return retry.Permanent{Err: fmt.Errorf("the control plane of %s ended: %w", m.name, p.Wait())}
		default:
		}
		_, err := w.admin(m).status(ctx)
		return err
	})
}

// startAgent gives an agent its join token and starts it.
func (w *world) startAgent(ctx context.Context, m mesh, name, verb, namespace string, r adminapi.TokenRequest) error {
	token, err := w.admin(m).token(ctx, r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.files.mesh(m.name, verb+".token"), []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the join token: %w", err)
	}
	_, err = w.start(lab.Command{
		Name: name, Namespace: namespace, Path: w.options.Isthmus,
		Args: []string{verb, "--config", w.files.mesh(m.name, verb+".yaml")},
	})
	return err
}

func (w *world) startProgram(m mesh, wl workload) error {
	args := []string{wl.program, "--listen", listenFlag(wl)}
	if wl.program != "tokens" {
		args = append(args, "--served-by", wl.name+"@"+m.name)
	}
	_, err := w.start(lab.Command{
		Name: programName(m, wl), Namespace: w.plan.workloadNetns(m, wl),
		Resolv: w.files.resolv(w.plan.workloadNetns(m, wl)), Path: w.options.Samples, Args: append(args, wl.args...),
	})
	return err
}

func (w *world) start(c lab.Command) (*lab.Process, error) {
	p, err := w.lab.Start(c)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.processes == nil {
		w.processes = map[string]*lab.Process{}
	}
	w.processes[c.Name] = p
	return p, nil
}

func (w *world) process(name string) *lab.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.processes[name]
}

// ready returns an error that names what mesh m is still waiting for.
func (w *world) ready(ctx context.Context, m mesh) error {
	for _, name := range []string{controlName(m), nodeName(m), gatewayName(m)} {
		p := w.process(name)
		select {
		case <-p.Done():
			return retry.Permanent{Err: fmt.Errorf("%s ended: %w", name, p.Wait())}
		default:
		}
	}
	st, err := w.admin(m).status(ctx)
	if err != nil {
		return err
	}
	return proxiesReady(st, len(m.workloads), nodeName(m), gatewayName(m))
}

// proxiesReady returns an error that names a proxy that is not connected, running and in sync.
func proxiesReady(st *adminapi.StatusResponse, workloads int, names ...string) error {
	for _, name := range names {
		i := slices.IndexFunc(st.Proxies, func(p adminapi.ProxyStatus) bool { return p.Name == name })
		if i < 0 {
			return fmt.Errorf("%s has not joined", name)
		}
		p := st.Proxies[i]
		switch {
		case !p.Connected:
			return fmt.Errorf("%s is not connected", name)
		case !p.Envoy.Running:
			return fmt.Errorf("the Envoy of %s is not running", name)
		case p.Role == snapshot.RoleNode && len(p.Workloads) < workloads:
			return fmt.Errorf("%s has registered %d of %d workloads", name, len(p.Workloads), workloads)
		case len(p.Types) == 0:
			return fmt.Errorf("the Envoy of %s has asked for nothing yet", name)
		}
		for _, t := range p.Types {
			if t.Nack != "" {
				return fmt.Errorf("the Envoy of %s refuses its %s: %s", name, t.Type, t.Nack)
			}
			if t.Sent != t.Acked {
				return fmt.Errorf("the Envoy of %s has not acknowledged its %s", name, t.Type)
			}
		}
	}
	return nil
}

// watch waits for ctx and reports every process that exits on its own.
func (w *world) watch(ctx context.Context, say printer) error {
	w.mu.Lock()
	ended := make(chan string, len(w.processes))
	for name, p := range w.processes {
		go func() {
			<-p.Done()
			ended <- fmt.Sprintf("%s ended by itself (%v); its log: %s", name, p.Wait(), w.lab.LogFile(name))
		}()
	}
	w.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case what := <-ended:
			say.step("%s", what)
		}
	}
}

// withLogs appends the end of the logs to an error, since the logs are about to be removed.
func (w *world) withLogs(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	var b strings.Builder
	for _, m := range w.plan.meshes {
		for _, name := range []string{controlName(m), nodeName(m), gatewayName(m)} {
			if tail := tail(w.lab.LogFile(name), 3); tail != "" {
				fmt.Fprintf(&b, "\n%s said last:\n%s", name, tail)
			}
		}
	}
	return fmt.Errorf("%w%s", err, b.String())
}

func tail(path string, n int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// keepLogs copies the logs if the options ask for it.
func (w *world) keepLogs() error {
	if w.options.KeepLogs == "" {
		return nil
	}
	if err := os.MkdirAll(w.options.KeepLogs, 0o755); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	logs, err := filepath.Glob(w.lab.LogFile("*"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(w.options.KeepLogs, filepath.Base(path)), raw, 0o644); err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
	}
	return nil
}
