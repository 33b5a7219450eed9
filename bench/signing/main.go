// Command signing measures what a certificate costs: one raw signature, one certificate from a request by the standard
// library alone, by the mesh's authority with its durable record, and by the real control plane over gRPC. All as a
// rate per second of CPU, in turns, so that they compare. Then it lets many workloads renew, as they would within half
// a certificate's life.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	binary    string
	turn      time.Duration
	rounds    int
	nodes     int
	callers   int
	workloads int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/isthmus", "the isthmus binary to measure")
	flag.DurationVar(&o.turn, "turn", time.Second, "of each way in each round")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds, in which every way has its turn")
	flag.IntVar(&o.nodes, "nodes", 8, "nodes that ask the control plane, each on a connection of its own")
	flag.IntVar(&o.callers, "callers", 64, "calls at a time, of all nodes")
	flag.IntVar(&o.workloads, "workloads", 10_000, "workloads that renew")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/signing:", err)
		os.Exit(1)
	}
}

// halfLife is within which every workload renews once: half of the hour that a certificate lives.
const halfLife = 30 * time.Minute

// figures are rates per second of CPU, medians over the rounds.
type figures struct {
	RawPerS    float64 `json:"raw"`
	StdlibPerS float64 `json:"stdlib"`
	InProcess  float64 `json:"authority"`      // without gRPC
	GRPCPerS   float64 `json:"grpc"`           // of the control plane's CPU
	Ratio      float64 `json:"grpc_to_stdlib"` // median of the rounds' ratios
	Workloads  int     `json:"renewals"`
	RenewalCPU float64 `json:"renewals_cpu_s"`
	OfACore    float64 `json:"renewals_of_a_core"` // when they are spread over halfLife
}

func run(ctx context.Context, o options) error {
	key, csr, err := request()
	if err != nil {
		return err
	}
	authority, closeAuthority, err := ownAuthority(ctx, csr)
	if err != nil {
		return fmt.Errorf("certify by the authority: %w", err)
	}
	defer closeAuthority()
	plane, err := startPlane(ctx, o, csr)
	if err != nil {
		return err
	}
	defer plane.stop()
	ways := []way{
		{"sign", ownCPU, 1, func(int) error { return sign(csr, key) }},
		{"certify", ownCPU, 1, func(int) error { return certify(csr, key) }},
		{"certify by the authority", ownCPU, o.callers, func(int) error { return authority() }},
		{"certify over gRPC", plane.cpu, o.callers, func(caller int) error { return plane.ask(ctx, caller) }},
	}
	rates := make([][]float64, len(ways))
	var ratios []float64
	for range o.rounds {
		for i, w := range ways {
			r, err := w.rate(o.turn)
			if err != nil {
				return fmt.Errorf("%s: %w", w.what, err)
			}
			rates[i] = append(rates[i], r)
		}
		ratios = append(ratios, rates[3][len(ratios)]/rates[1][len(ratios)])
	}
	f := figures{
		RawPerS: median(rates[0]), StdlibPerS: median(rates[1]), InProcess: median(rates[2]),
		GRPCPerS: median(rates[3]), Ratio: median(ratios), Workloads: o.workloads,
	}
	cpu, err := plane.renewals(ctx, o.workloads)
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	f.RenewalCPU, f.OfACore = cpu.Seconds(), cpu.Seconds()/halfLife.Seconds()
	return f.print(os.Stdout)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// print writes the table for people and the line for programs.
func (f figures) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	mark := map[bool]string{true: "√", false: "×"}
	fmt.Fprintf(t, "\twhat\taim\tseen\n")
	fmt.Fprintf(t, "\traw P-256 signatures\t\t%.0f per CPU-second\n", f.RawPerS)
	fmt.Fprintf(t, "\trequest → certificate, standard library\t\t%.0f per CPU-second\n", f.StdlibPerS)
	fmt.Fprintf(t, "\trequest → certificate, authority with its durable record\t\t%.0f per CPU-second\n", f.InProcess)
	fmt.Fprintf(t, "\trequest → certificate, control plane over gRPC\t\t%.0f per CPU-second\n", f.GRPCPerS)
	fmt.Fprintf(t, "%s\tcontrol plane to standard library\t≥ 60 %%\t%.0f %%\n", mark[f.Ratio >= 0.6], 100*f.Ratio)
	fmt.Fprintf(t,
		"%s\t%d workloads renew once in %.0f min, one after the other\t≤ 5 %% of a core\t%.2f %%, %.1f s of CPU\n",
		mark[f.OfACore <= 0.05], f.Workloads, halfLife.Minutes(), 100*f.OfACore, f.RenewalCPU)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	out, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	fmt.Fprintf(w, "\n%s\n", out)
	return nil
}
