package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one protocol over one shape, in all rounds.
type row struct {
	shape, protocol string
	samples         []sample
}

// median of a figure over the rounds.
func (r *row) median(figure func(sample) float64) float64 {
	var all []float64
	for _, s := range r.samples {
		all = append(all, figure(s))
	}
	return median(all)
}

// most is the largest of a figure over the rounds.
func (r *row) most(figure func(sample) float64) (most float64) {
	for _, s := range r.samples {
		most = max(most, figure(s))
	}
	return most
}

// against is the median over the rounds of a figure as a ratio to another row's in the same round.
func (r *row) against(other *row, figure func(sample) float64) float64 {
	var all []float64
	for i, s := range r.samples {
		all = append(all, figure(s)/figure(other.samples[i]))
	}
	return median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// stalls are the turns of which the p99 is more than three times what it usually is: then the machine, or one process
// on it, stood still, and all calls of that time waited for it. Of 250 calls a turn, one stall of 45 ms makes some 40
// late, which is one in a hundred of 4000: so turns are not taken together.
func (r *row) stalls() (turns int) {
	usual := r.median(openP99)
	for _, s := range r.samples {
		if openP99(s) > 3*usual {
			turns++
		}
	}
	return turns
}

// The figures of a sample.
func openP50(s sample) float64   { return ms(s.open.Latency.Quantile(0.5)) }
func openP99(s sample) float64   { return ms(s.open.Latency.Quantile(0.99)) }
func longest(s sample) float64   { return ms(s.open.Latency.Max()) }
func openCPU(s sample) float64   { return s.openCPU.Seconds() * 1000 }
func closedCPU(s sample) float64 { return s.closedCPU.Seconds() * 1000 }
func agentCPU(s sample) float64  { return s.agentCPU.Seconds() * 1000 }
func perSecond(s sample) float64 { return s.closed.PerSecond() }
func rssMB(s sample) float64     { return float64(s.rss) / 1024 }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// line is the JSON form of a row.
type line struct {
	Shape              string  `json:"shape"`
	Protocol           string  `json:"protocol"`
	P50MS              float64 `json:"p50_ms"`
	P99MS              float64 `json:"p99_ms"`
	Stalls             int     `json:"stalled_turns"`
	LongestMS          float64 `json:"longest_ms"`
	CoresPer1000       float64 `json:"cores_per_1000"`
	CoresPer1000Full   float64 `json:"cores_per_1000_saturated"`
	AgentsCoresPer1000 float64 `json:"agents_cores_per_1000"`
	Saturation         float64 `json:"saturation_per_s"`
	OfDirect           float64 `json:"of_direct,omitempty"`
	RSSMB              float64 `json:"rss_mb"`
}

// aim is a comparison that something was promised of.
type aim struct {
	Protocol string  `json:"protocol"`
	What     string  `json:"what"`
	Seen     float64 `json:"seen"`
	Aim      float64 `json:"aim"`
	AtLeast  bool    `json:"at_least,omitempty"`
}

func (a aim) held() bool { return a.AtLeast && a.Seen >= a.Aim || !a.AtLeast && a.Seen <= a.Aim }

// printReport writes the tables for people and one line of JSON for programs.
func printReport(w io.Writer, o options, ps []protocol, rows []*row) error {
	busy, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(w,
		"\nAnswers of %d bytes, %d connections, Envoys with %d worker; caller, callee and Envoys on the same cores.\n"+
			"Medians of %d rounds of %s a loop. Load average at the end: %s\n", answerSize, o.connections,
		o.concurrency,
		o.rounds, o.duration, firstWord(string(busy)))
	find := func(shape, protocol string) *row {
		i := slices.IndexFunc(rows, func(r *row) bool { return r.shape == shape && r.protocol == protocol })
		if i < 0 {
			return nil
		}
		return rows[i]
	}
	var lines []line
	var aims []aim
	for _, p := range ps {
		fmt.Fprintf(w, "\n%s\n", p.Name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t,
			"shape\tp50 at %[1]d/s\tp99 at %[1]d/s\tstalls\tlongest\tcores per 1000/s\tthe same, saturated\t"+
				"agents' cores\tsaturation\tof direct\tRSS\t\n", o.rate)
		for _, r := range rows {
			if r.protocol != p.Name {
				continue
			}
			l := summary(r, find(direct, p.Name))
			lines = append(lines, l)
			fmt.Fprintf(t, "%s\t%.2f ms\t%.2f ms\t%d\t%.0f ms\t%.3f\t%.3f\t%.3f\t%.0f/s\t%.2f\t%.0f MB\t\n",
				l.Shape, l.P50MS, l.P99MS, l.Stalls, l.LongestMS, l.CoresPer1000, l.CoresPer1000Full,
				l.AgentsCoresPer1000, l.Saturation, l.OfDirect, l.RSSMB)
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("print the table: %w", err)
		}
		aims = append(aims, compare(p.Name, find)...)
	}
	fmt.Fprintln(w)
	for _, a := range aims {
		mark := "×"
		if a.held() {
			mark = "√"
		}
		fmt.Fprintf(w, "%s %s: %s %.2f (aim %.2f)\n", mark, a.Protocol, a.What, a.Seen, a.Aim)
	}
	out, err := json.Marshal(map[string]any{"rate": o.rate, "rows": lines, "aims": aims})
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	_, err = fmt.Fprintf(w, "\n%s\n", out)
	return err
}

func summary(r, direct *row) line {
	l := line{
		Shape: r.shape, Protocol: r.protocol, P50MS: round(r.median(openP50), 2), P99MS: round(r.median(openP99), 2),
		Stalls: r.stalls(), LongestMS: round(r.most(longest), 1),
		CoresPer1000: round(r.median(openCPU), 4), CoresPer1000Full: round(r.median(closedCPU), 4),
		AgentsCoresPer1000: round(r.median(agentCPU), 4), Saturation: round(r.median(perSecond), 0),
		RSSMB: round(r.median(rssMB), 1),
	}
	if direct != nil {
		l.OfDirect = round(r.against(direct, perSecond), 3)
	}
	return l
}

// compare says what was promised of a protocol, as far as its shapes were measured.
func compare(protocol string, find func(shape, protocol string) *row) []aim {
	var out []aim
	add := func(what, shape, base string, figure func(sample) float64, limit float64, atLeast bool) {
		r, b := find(shape, protocol), find(base, protocol)
		if r != nil && b != nil {
			out = append(out, aim{
				Protocol: protocol, What: what, Seen: round(r.against(b, figure), 3), Aim: limit, AtLeast: atLeast,
			})
		}
	}
	for _, c := range []struct{ shape, base string }{
		{isthmusPair, pairByHand},
		{isthmusPair, pairHardened},
		{isthmusOne, oneByHand},
		{isthmusOne, oneHardened},
		{isthmusAcross, acrossByHand},
		{isthmusAcross, acrossHardened},
	} {
		to := c.shape + " to " + c.base + ", "
		add(to+"CPU", c.shape, c.base, openCPU, 1.05, false)
		add(to+"CPU saturated", c.shape, c.base, closedCPU, 1.05, false)
		add(to+"p99", c.shape, c.base, openP99, 1.05, false)
	}
	across := 1.8
	if protocol == "tcp" {
		across = 1.6
	}
	add("across meshes to two nodes, CPU", isthmusAcross, isthmusPair, openCPU, across, false)
	add("across meshes to two nodes, CPU saturated", isthmusAcross, isthmusPair, closedCPU, across, false)
	add("throughput of one node to that of two", isthmusOne, isthmusPair, perSecond, 1.6, true)
	if protocol == "tcp" {
		add("throughput of one node to direct", isthmusOne, direct, perSecond, 0.85*0.36, true)
	}
	return out
}

func round(v float64, digits int) float64 {
	f := math.Pow(10, float64(digits))
	return math.Round(v*f) / f
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}
