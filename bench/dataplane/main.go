// Command dataplane measures what the way from a caller to a callee costs, shape beside shape in one run on one machine:
// latency at a fixed rate (open loop), throughput at saturation (closed loop), CPU and memory of the proxies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	envoy       string
	concurrency int
	rate        int
	connections int
	duration    time.Duration
	keep        bool
}

func main() {
	var o options
	flag.StringVar(&o.envoy, "envoy", "", "the Envoy binary; default: $ISTHMUS_ENVOY, then envoy in PATH")
	flag.IntVar(&o.concurrency, "concurrency", 1, "worker threads of each Envoy")
	flag.IntVar(&o.rate, "rate", 1000, "calls a second in the open loop")
	flag.IntVar(&o.connections, "connections", 16, "connections of the caller")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "of each loop, after a warm-up of a fifth")
	flag.BoolVar(&o.keep, "keep", false, "keep the temporary folder (configuration, logs)")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/dataplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	binary, err := findEnvoy(o.envoy)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	if !o.keep {
		defer os.RemoveAll(dir)
	}
	caller, callee, err := twoHosts()
	if err != nil {
		return err
	}
	defer caller.remove()
	defer callee.remove()
	env := environment{dir: dir, envoy: binary, concurrency: o.concurrency, caller: caller, callee: callee, protocols: protocols()}
	stop, err := serveAll(callee, env.protocols)
	if err != nil {
		return fmt.Errorf("start the servers: %w", err)
	}
	defer stop()
	var rows []row
	for _, s := range shapes() {
		more, err := runShape(ctx, o, env, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		rows = append(rows, more...)
	}
	return printRows(os.Stdout, o, rows)
}

// runShape measures every protocol over one shape.
func runShape(ctx context.Context, o options, env environment, s shape) ([]row, error) {
	r, err := s.start(ctx, env)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	var rows []row
	for _, p := range env.protocols {
		fmt.Fprintf(os.Stderr, "· %s, %s\n", s.name, p.Name)
		got, err := measure(ctx, o, env, r, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		got.Shape, got.Protocol = s.name, p.Name
		rows = append(rows, got)
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

// line is the JSON form of a row.
type line struct {
	Shape        string  `json:"shape"`
	Protocol     string  `json:"protocol"`
	Rate         int     `json:"rate"`
	P50MS        float64 `json:"p50_ms"`
	P99MS        float64 `json:"p99_ms"`
	MaxMS        float64 `json:"max_ms"`
	CoresPer1000 float64 `json:"cores_per_1000"`
	Saturation   float64 `json:"saturation_per_s"`
	RSSMB        int     `json:"rss_mb"`
	Errors       int     `json:"errors"`
}

// printRows writes the table for people and one line of JSON for programs.
func printRows(w io.Writer, o options, rows []row) error {
	fmt.Fprintf(w, "\nAnswers of %d bytes, %d connections, Envoys with %d worker; caller, callee and proxies on the same cores\n\n",
		answerSize, o.connections, o.concurrency)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "shape\tprotocol\tp50 at %[1]d/s\tp99 at %[1]d/s\tlongest\tproxy cores per 1000/s\tsaturation\tproxies' RSS\terrors\t\n", o.rate)
	var lines []line
	for _, r := range rows {
		l := line{
			Shape: r.Shape, Protocol: r.Protocol, Rate: o.rate,
			P50MS: ms(r.Open.Latency.Quantile(0.5)), P99MS: ms(r.Open.Latency.Quantile(0.99)), MaxMS: ms(r.Open.Latency.Max()),
			CoresPer1000: float64(int(r.CoresPer1000*1000)) / 1000, Saturation: float64(int(r.Closed.PerSecond())),
			RSSMB: r.RSS / 1024, Errors: r.Open.Errors + r.Closed.Errors,
		}
		lines = append(lines, l)
		fmt.Fprintf(t, "%s\t%s\t%.2f ms\t%.2f ms\t%.1f ms\t%.3f\t%.0f/s\t%d MB\t%d\t\n",
			l.Shape, l.Protocol, l.P50MS, l.P99MS, l.MaxMS, l.CoresPer1000, l.Saturation, l.RSSMB, l.Errors)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	out, err := json.Marshal(lines)
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	fmt.Fprintf(w, "\n%s\n", out)
	for _, r := range rows {
		if err := errors.Join(r.Open.First, r.Closed.First); err != nil {
			return fmt.Errorf("%s, %s: the first failed call: %w", r.Shape, r.Protocol, err)
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
