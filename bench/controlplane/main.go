// Command controlplane measures the control plane: it starts a real one on loopback, joins agents that only listen,
// and counts bytes, time, CPU and memory while they connect, while the configuration changes, and while they reconnect.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
)

// options of one run.
type options struct {
	plan    genmesh.Plan
	binary  string
	changes int           // endpoint changes
	adds    int           // services added, and policies changed
	churn   time.Duration // how long endpoints churn
	timeout time.Duration // of each wait
	keep    bool
	matrix  bool
	hostile bool
}

func main() {
	var o options
	flag.IntVar(&o.plan.Services, "services", 1000, "services in the mesh")
	flag.IntVar(&o.plan.Endpoints, "endpoints", 5, "endpoints of each service")
	flag.IntVar(&o.plan.Proxies, "proxies", 200, "proxies, with one workload each")
	flag.IntVar(&o.plan.Callable, "callable", 5, "services that each workload may call")
	flag.Uint64Var(&o.plan.Seed, "seed", 1, "seed of who calls whom")
	flag.IntVar(&o.changes, "changes", 100, "endpoint changes, one after the other")
	flag.IntVar(&o.adds, "adds", 5, "services added, and policies changed, one after the other")
	flag.DurationVar(&o.churn, "churn", 5*time.Second,
		"how long a hundredth of all endpoints changes every second; 0: not at all")
	flag.StringVar(&o.binary, "binary", "bin/isthmus", "the isthmus binary to measure")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "give up a wait after this long")
	flag.BoolVar(&o.keep, "keep", false, "keep the temporary folder (configuration, log, state)")
	flag.BoolVar(&o.matrix, "matrix", false,
		"measure meshes of nine sizes instead of one: 100, 1000 and 5000 services by 50, 200 and 1000 proxies")
	flag.BoolVar(&o.hostile, "hostile", false, "measure what honest proxies notice of hostile ones")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := one
	switch {
	case o.matrix:
		run = matrix
	case o.hostile:
		run = hostile
	case flag.Arg(0) == attackCommand: // one of those that hostile starts
		run = func(ctx context.Context, _ options) error { return attackAs(ctx, flag.Args()[1:]) }
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/controlplane:", err)
		os.Exit(1)
	}
}

// one measures one mesh and prints it.
func one(ctx context.Context, o options) error {
	f, err := run(ctx, o)
	if err != nil {
		return err
	}
	return f.print(os.Stdout)
}

// run does the whole measurement of one mesh.
func run(ctx context.Context, o options) (figures, error) {
	mesh, err := genmesh.New(o.plan)
	if err != nil {
		return figures{}, err
	}
	b, control, stop, err := startBench(ctx, o, mesh, o.plan.Proxies)
	if err != nil {
		return figures{}, err
	}
	defer stop()
	f, err := b.run(ctx)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w\nThe control plane's last words:\n%s", err, control.LogTail())
	}
	return f, err
}

// startBench starts a control plane that has read the mesh, and joins the first proxies of it.
func startBench(
	ctx context.Context, o options, mesh *genmesh.Mesh, proxies int,
) (_ *bench, _ *rig.Control, stop func(), err error) {
	dir, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	b := &bench{opts: o, mesh: mesh, configDir: filepath.Join(dir, "config"), figures: figures{Plan: o.plan}}
	var control *rig.Control
	end := func() {
		if b.fleet != nil {
			b.fleet.disconnect()
		}
		if control != nil {
			control.Stop()
		}
		if !o.keep {
			os.RemoveAll(dir)
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if o.keep {
		progress("everything is kept in %s", dir)
	}
	if err := writeMesh(b.configDir, mesh); err != nil {
		return nil, nil, nil, err
	}
	if control, err = rig.Start(o.binary, dir, b.configDir); err != nil {
		return nil, nil, nil, err
	}
	b.subject = control
	if err := b.populate(ctx, control, proxies); err != nil {
		return nil, nil, nil, fmt.Errorf("%w\nThe control plane's last words:\n%s", err, control.LogTail())
	}
	return b, control, end, nil
}

func writeMesh(dir string, mesh *genmesh.Mesh) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make the configuration folder: %w", err)
	}
	return mesh.Write(dir)
}

// progress tells a watching person what is being done.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "· "+format+"\n", args...) }
