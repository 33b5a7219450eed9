package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// What may grow during a soak without being called a leak: caches fill, buffers find their size.
const (
	growthRSS   = 64 << 10 // KB
	growthFiles = 64
)

// disturbance is one thing that goes wrong, or changes, while requests flow.
type disturbance struct {
	name string
	do   func(context.Context, *world) error
}

// disturbances happen in turn, again and again.
var disturbances = []disturbance{
	{"control plane of cards killed", func(ctx context.Context, w *world) error { return w.killControl(ctx, w.cards()) }},
	{"endpoints change 200 times", churnEndpoints},
	{"agent of retail's node killed", func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), nodeName(w.retail()), "node")
	}},
	{"policies change 50 times", churnPolicies},
	{"control plane of retail killed", func(ctx context.Context, w *world) error { return w.killControl(ctx, w.retail()) }},
	{"agent of cards' gateway killed", func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), gatewayName(w.cards()), "gateway")
	}},
	{"agent of cards' node killed", func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), nodeName(w.cards()), "node")
	}},
	{"agent of retail's gateway killed", func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), gatewayName(w.retail()), "gateway")
	}},
}

// soak keeps the demo under load with short-lived certificates and disturbs it for as long as it is told. It fails when a
// request failed, or when a process grew beyond bounds.
func (w *world) soak(ctx context.Context, say printer, length time.Duration) error {
	for _, m := range w.plan.meshes {
		if err := w.setTTL(m, "5m", shortLife); err != nil {
			return err
		}
	}
	load, err := w.load()
	if err != nil {
		return err
	}
	defer load.end()
	// One round first: what every process needs to do its work is no leak.
	if err := w.round(ctx, say, time.Time{}); err != nil {
		return err
	}
	before := w.footprints()
	end := time.Now().Add(length)
	for rounds := 1; time.Now().Before(end); rounds++ {
		if err := w.round(ctx, say, end); err != nil {
			return err
		}
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	r, err := load.finish(ctx)
	if err != nil {
		return err
	}
	say.text(fmt.Sprintf("\n%d requests, %d failed\n\n", r.Requests, r.Failures))
	grown := reportGrowth(say, before, w.footprints())
	if r.Failures > 0 {
		return fmt.Errorf("soak: %d of %d requests failed, the first: %s", r.Failures, r.Requests, r.FirstFailure)
	}
	return grown
}

// round disturbs once in every way, or until end.
func (w *world) round(ctx context.Context, say printer, end time.Time) error {
	for _, d := range disturbances {
		if !end.IsZero() && time.Now().After(end) {
			return nil
		}
		say.step("%s", d.name)
		if err := d.do(ctx, w); err != nil {
			return fmt.Errorf("soak: %s: %w", d.name, err)
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (w *world) killControl(ctx context.Context, m mesh) error {
	w.process(controlName(m)).Kill()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := w.startControl(ctx, m); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) error { return w.ready(ctx, m) })
}

func (w *world) killAgent(ctx context.Context, m mesh, name, verb string) error {
	w.process(name).Kill()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	namespace := w.plan.hostNetns(m)
	if verb == "gateway" {
		namespace = w.plan.gatewayNetns(m)
	}
	_, err := w.start(lab.Command{
		Name: name, Namespace: namespace, Path: w.options.Isthmus, Args: []string{verb, "--config", w.files.mesh(m.name, verb+".yaml")},
	})
	if err != nil {
		return err
	}
	return until(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) error { return w.ready(ctx, m) })
}

// churnEndpoints moves a server of another service about: everything hears of it but the load's way.
func churnEndpoints(ctx context.Context, w *world) error {
	m := w.retail()
	for n := range 200 {
		text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: churn, namespace: default}
spec:
  selector: {app: churn}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: churn, namespace: default}
spec: {address: 10.72.0.%d, labels: {app: churn}, serviceAccount: churn}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: churn, namespace: default}
spec:
  selector: {matchLabels: {app: churn}}
  rules: [{from: [{source: {principals: [retail.example/ns/default/sa/storefront]}}]}]
`, 100+n%100)
		if err := writeFile(w.files.mesh(m.name, "config", "churn.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// churnPolicies changes a policy on the load's way, to and fro, without ever forbidding it.
func churnPolicies(ctx context.Context, w *world) error {
	m := w.cards()
	for n := range 50 {
		text := fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: soak, namespace: default}
spec:
  action: DENY
  selector: {matchLabels: {app: payments}}
  rules: [{to: [{operation: {paths: ["/forbidden/%d"]}}]}]
`, n)
		if err := writeFile(w.files.mesh(m.name, "config", "soak.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// footprint is what a process holds.
type footprint struct{ rss, files, threads int }

// footprints of the control planes, the agents and their Envoys, by name.
func (w *world) footprints() map[string]footprint {
	out := map[string]footprint{}
	for _, m := range w.plan.meshes {
		for _, name := range []string{controlName(m), nodeName(m), gatewayName(m)} {
			if p := w.process(name); p != nil {
				out[name] = footprintOf(p.PID())
			}
		}
		for name, netns := range map[string]string{nodeName(m): w.plan.hostNetns(m), gatewayName(m): w.plan.gatewayNetns(m)} {
			if pid := envoyIn(netns); pid > 0 {
				out[name+"'s Envoy"] = footprintOf(pid)
			}
		}
	}
	return out
}

func footprintOf(pid int) footprint {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	files, _ := os.ReadDir(filepath.Join(dir, "fd"))
	f := footprint{files: len(files)}
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch {
		case err != nil:
		case key == "VmRSS":
			f.rss = n
		case key == "Threads":
			f.threads = n
		}
	}
	return f
}

// envoyIn is the Envoy that lives in a network namespace, 0 for none.
func envoyIn(netns string) int {
	want, err := os.Stat(lab.NetnsPath(netns))
	if err != nil {
		return 0
	}
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range pids {
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		if strings.TrimSpace(string(name)) != "envoy" {
			continue
		}
		if is, err := os.Stat(filepath.Join(dir, "ns", "net")); err == nil && os.SameFile(want, is) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// reportGrowth prints what each process held before and holds now, and names those that grew beyond bounds.
func reportGrowth(say printer, before, after map[string]footprint) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "process\tmemory before\tafter\tfiles before\tafter\tthreads before\tafter\t")
	var names []string
	for name := range after {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		x, y := before[name], after[name]
		fmt.Fprintf(t, "%s\t%d MB\t%d MB\t%d\t%d\t%d\t%d\t\n", name, x.rss>>10, y.rss>>10, x.files, y.files, x.threads, y.threads)
		if y.rss-x.rss > growthRSS || y.files-x.files > growthFiles {
			errs = append(errs, fmt.Errorf("soak: %s grew from %d to %d MB and from %d to %d open files", name, x.rss>>10, y.rss>>10, x.files, y.files))
		}
	}
	t.Flush()
	say.text(b.String())
	return errors.Join(errs...)
}
