// Command dataplane measures what the way from a caller to a callee costs, shape beside shape in one run on one
// machine: latency at a fixed rate (open loop), throughput at saturation (closed loop), CPU and memory of the Envoys.
// The shapes take turns, round after round, and what is compared is compared within a round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/bench/meshlab"
)

type options struct {
	envoy       string
	isthmus     string
	concurrency int
	rate        int
	connections int
	rounds      int
	duration    time.Duration
	protocols   string
	shapes      string
	hold        bool
}

func main() {
	var o options
	flag.StringVar(&o.envoy, "envoy", "", "the Envoy binary; default: $ISTHMUS_ENVOY, then envoy in PATH")
	flag.StringVar(&o.isthmus, "binary", "bin/isthmus", "the isthmus binary")
	flag.IntVar(&o.concurrency, "concurrency", 1, "worker threads of each Envoy")
	flag.IntVar(&o.rate, "rate", 1000, "calls a second in the open loop")
	flag.IntVar(&o.connections, "connections", 16, "connections of the caller")
	flag.IntVar(&o.rounds, "rounds", 25, "how often every shape has its turn, after a first one that is not counted")
	flag.DurationVar(&o.duration, "duration", 250*time.Millisecond, "of each loop in each turn")
	flag.StringVar(&o.protocols, "protocols", "http1,http2,grpc,tcp", "what to speak")
	flag.StringVar(&o.shapes, "shapes", "", "words of which one must be in a shape's name; default: all shapes")
	flag.BoolVar(&o.hold, "hold", false, "after measuring, keep everything running until interrupted")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/dataplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	env, err := newEnvironment(o)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, env.lab.Logs())
		}
		err = errors.Join(err, env.lab.Close())
	}()
	stop, err := serveAll(env, freeCallee, heldCallee, heldFarCallee, oneCallee, twoCallee, farCallee)
	if err != nil {
		return fmt.Errorf("start the servers: %w", err)
	}
	defer stop()
	for _, name := range []string{heldCaller, heldCallee, heldFarCallee} {
		if err := env.lab.Place(name).Capture(); err != nil {
			return err
		}
	}
	if err := writeCertificates(env.lab.Dir()); err != nil {
		return err
	}
	if err := startMeshes(ctx, env); err != nil {
		return err
	}
	all, err := startShapes(ctx, o, env)
	if err != nil {
		return err
	}
	rows, err := measureAll(ctx, o, env.protocols, all)
	if err != nil {
		return err
	}
	if err := printReport(os.Stdout, o, env.protocols, rows); err != nil {
		return err
	}
	if o.hold {
		fmt.Fprintf(os.Stderr, "· everything stays in %s until you interrupt\n", env.lab.Dir())
		<-ctx.Done()
	}
	return nil
}

func newEnvironment(o options) (*environment, error) {
	binary, err := findEnvoy(o.envoy)
	if err != nil {
		return nil, err
	}
	isthmus, err := filepath.Abs(o.isthmus)
	if err != nil {
		return nil, err
	}
	env := &environment{envoy: binary, concurrency: o.concurrency, meshes: map[string]*meshlab.Running{}}
	wanted := strings.Split(o.protocols, ",")
	for _, p := range protocols() {
		if slices.Contains(wanted, p.Name) {
			env.protocols = append(env.protocols, p)
		}
	}
	env.lab, err = meshlab.Open(meshlab.Config{
		Prefix: "isthmus-t-bench", Dir: filepath.Join(os.TempDir(), "isthmus-bench-dataplane"),
		Isthmus: isthmus, Envoy: binary, Concurrency: o.concurrency, Meshes: meshes(env.protocols),
	})
	if err != nil {
		return nil, err
	}
	return env, nil
}

// startShapes starts all shapes that are wanted and sees that each carries calls.
func startShapes(ctx context.Context, o options, env *environment) ([]*running, error) {
	var all []*running
	for _, s := range shapes() {
		if !wants(o.shapes, s.name) {
			continue
		}
		r, err := s.start(ctx, env)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		r.name = s.name
		for _, p := range env.protocols {
			if err := r.answers(ctx, p); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		all = append(all, r)
	}
	return all, nil
}

func wants(words, name string) bool {
	return words == "" || slices.ContainsFunc(strings.Split(words, ","),
		func(w string) bool { return strings.Contains(name, w) })
}

// measureAll measures protocol after protocol; within one, every shape has its turn in every round, to and fro.
func measureAll(ctx context.Context, o options, ps []protocol, all []*running) ([]*row, error) {
	var rows []*row
	for _, p := range ps {
		fmt.Fprintf(os.Stderr, "· %s\n", p.Name)
		of := make([]*row, len(all))
		for i, r := range all {
			of[i] = &row{shape: r.name, protocol: p.Name}
		}
		for round := range o.rounds + 1 {
			for n := range all {
				i := n
				if round%2 == 1 {
					i = len(all) - 1 - n
				}
				s, err := measure(ctx, o, all[i], p)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", all[i].name, p.Name, err)
				}
				if err := errors.Join(s.open.First, s.closed.First); err != nil {
					return nil, fmt.Errorf("%s, %s: a call failed: %w", all[i].name, p.Name, err)
				}
				if round > 0 {
					of[i].samples = append(of[i].samples, s)
				}
			}
		}
		rows = append(rows, of...)
	}
	return rows, nil
}

// findEnvoy names the binary to run.
func findEnvoy(flag string) (string, error) {
	for _, path := range []string{flag, os.Getenv("ISTHMUS_ENVOY")} {
		if path != "" {
			return path, nil
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return "", errors.New("no Envoy found: name it with --envoy or ISTHMUS_ENVOY, or put it into PATH")
	}
	return path, nil
}
