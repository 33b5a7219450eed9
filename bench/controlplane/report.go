package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/genmesh"
)

// figures are all that one run measured.
type figures struct {
	Plan       genmesh.Plan
	Load, Join time.Duration

	Sync         time.Duration
	Synced       []time.Duration // the same of each proxy
	SyncCPU      time.Duration
	Types        adsclient.Totals // of all proxies, after the cold connect
	Instructions int              // bytes on the agents' own streams, all proxies

	Endpoint, Add, Policy, Churn changes

	ChurnCPU  time.Duration
	ChurnTime time.Duration

	Reconnect, Restart reconnection

	Phases []phase

	RSS, PeakRSS int // KB
	CPUTotal     time.Duration
}

// reconnection is one time that all proxies came back with what they had.
type reconnection struct {
	Took          time.Duration   // until the last thing arrived
	Back          []time.Duration // until the last thing arrived at each proxy
	CPU           time.Duration
	Bytes         int // of whole messages
	ResourceBytes int
}

// changes is one sort of change, made several times.
type changes struct {
	Count          int
	Latencies      []time.Duration // from the file's write to the receipt, one per proxy concerned
	BytesConcerned int
	Concerned      int
	BytesOthers    int
}

// quantile of the latencies; 1 is the last.
func (c changes) quantile(q float64) time.Duration {
	return quantile(c.Latencies, q)
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// line is the JSON form; its keys are what other programs read.
type line struct {
	Services            int     `json:"services"`
	Proxies             int     `json:"proxies"`
	BytesPerProxy       int     `json:"bytes_per_proxy"`
	SyncS               float64 `json:"sync_s"`
	CPUS                float64 `json:"cpu_s"`
	RSSMB               float64 `json:"rss_mb"`
	EndpointP99MS       float64 `json:"endpoint_p99_ms"`
	EndpointBytesOthers int     `json:"endpoint_bytes_others"`
	AddBytesOthers      int     `json:"add_bytes_others"`
	ReconnectBytes      int     `json:"reconnect_bytes"`
}

func (f figures) line() line {
	return line{
		Services:            f.Plan.Services,
		Proxies:             f.Plan.Proxies,
		BytesPerProxy:       f.Types.Sum().Bytes / f.Plan.Proxies,
		SyncS:               round(f.Sync.Seconds(), 3),
		CPUS:                round(f.SyncCPU.Seconds(), 2),
		RSSMB:               round(float64(f.RSS)/1024, 1),
		EndpointP99MS:       round(float64(f.Endpoint.quantile(0.99).Microseconds())/1000, 2),
		EndpointBytesOthers: f.Endpoint.BytesOthers,
		AddBytesOthers:      f.Add.BytesOthers,
		ReconnectBytes:      f.Reconnect.ResourceBytes,
	}
}

func round(v float64, digits int) float64 {
	p := 1.0
	for range digits {
		p *= 10
	}
	return float64(int64(v*p+0.5)) / p
}

// aims are the bounds that a mesh of some size should keep; 0 is none.
type aims struct {
	bytesPerProxy, syncS, cpuS, rssMB, endpointP99MS float64
}

// aimsFor a mesh: small ones are held to what 1000 services and 200 proxies should keep, larger ones to what 5000 and
// 1000 should.
func aimsFor(p genmesh.Plan) aims {
	if p.Services > 1000 || p.Proxies > 200 {
		return aims{bytesPerProxy: 8000, rssMB: 1024, endpointP99MS: 100}
	}
	return aims{bytesPerProxy: 8000, syncS: 2, cpuS: 1.5, rssMB: 200, endpointP99MS: 50}
}

// print writes the table for people and the line for programs.
func (f figures) print(w io.Writer) error {
	fmt.Fprintf(w,
		"\n%d services × %d endpoints, %d proxies, each may call %d; client and control plane on the same cores\n\n",
		f.Plan.Services, f.Plan.Endpoints, f.Plan.Proxies, f.Plan.Callable)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\twhat\taim\tseen")
	f.aimed(t)
	fmt.Fprintln(t, "\t\t\t")
	f.details(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	out, err := json.Marshal(f.line())
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	fmt.Fprintf(w, "\n%s\n", out)
	return nil
}

// aimed are the rows that have an aim.
func (f figures) aimed(w io.Writer) {
	l, a := f.line(), aimsFor(f.Plan)
	for _, row := range []struct {
		what      string
		aim, seen float64
		unit      string
		exact     bool // an aim of zero is meant
	}{
		{"configuration, per proxy", a.bytesPerProxy / 1000, round(float64(l.BytesPerProxy)/1000, 2), "KB", false},
		{"all connect: until the last is in sync", a.syncS, l.SyncS, "s", false},
		{"all connect: CPU of the control plane", a.cpuS, l.CPUS, "s", false},
		{"memory of the control plane (RSS)", a.rssMB, l.RSSMB, "MB", false},
		{"endpoint changed: p99 from the file write", a.endpointP99MS, l.EndpointP99MS, "ms", false},
		{"endpoint changed: sent to proxies not concerned", 0, float64(l.EndpointBytesOthers), "bytes", true},
		{"service added: sent to proxies not concerned", 0, float64(l.AddBytesOthers), "bytes", true},
		{"all reconnect: resources sent again", 0, float64(l.ReconnectBytes), "bytes", true},
	} {
		mark, aim := "√", fmt.Sprintf("≤ %v %s", row.aim, row.unit)
		switch {
		case row.aim == 0 && !row.exact:
			mark, aim = " ", ""
		case row.seen > row.aim:
			mark = "×"
		}
		if row.exact {
			aim = fmt.Sprintf("%v %s", row.aim, row.unit)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%v %s\n", mark, row.what, aim, row.seen, row.unit)
	}
}

// details are the rows without an aim.
func (f figures) details(w io.Writer) {
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "\t%s\t\t%s\n", what, fmt.Sprintf(format, args...))
	}
	row("control plane ready", "%.2f s", f.Load.Seconds())
	row("all nodes joined (tokens, certificates)", "%.2f s, %.0f a second", f.Join.Seconds(),
		float64(f.Plan.Proxies)/f.Join.Seconds())
	for _, t := range adsclient.Types {
		if n, ok := f.Types[t]; ok {
			row("  "+short(t)+", per proxy", "%d bytes, %.1f resources, %.1f messages", n.Bytes/f.Plan.Proxies,
				float64(n.Resources)/float64(f.Plan.Proxies), float64(n.Messages)/float64(f.Plan.Proxies))
		}
	}
	row("  agent's own stream, per proxy", "%d bytes", f.Instructions/f.Plan.Proxies)
	for _, c := range []struct {
		what string
		changes
	}{
		{"endpoint changed", f.Endpoint},
		{"service added", f.Add},
		{"policy changed", f.Policy},
		{"endpoints churn", f.Churn},
	} {
		if c.Count == 0 {
			continue
		}
		row(c.what, "p50 %s, p99 %s, last %s over %d changes; %d bytes to each proxy concerned, %d to others",
			ms(c.quantile(0.5)), ms(c.quantile(0.99)), ms(c.quantile(1)), c.Count, c.BytesConcerned/max(1, c.Concerned),
			c.BytesOthers)
	}
	if f.ChurnTime > 0 {
		row("endpoints churn", "%.0f changes a second, %.2f cores", float64(f.Churn.Count)/f.ChurnTime.Seconds(),
			f.ChurnCPU.Seconds()/f.ChurnTime.Seconds())
	}
	for _, r := range []struct {
		what string
		reconnection
	}{{"all reconnect", f.Reconnect}, {"control plane restarted, all reconnect", f.Restart}} {
		row(r.what, "%.2f s, %.2f s of CPU, %d bytes of resources, %d bytes in all", r.Took.Seconds(), r.CPU.Seconds(),
			r.ResourceBytes, r.Bytes)
	}
	row("control plane, whole run", "%.2f s of CPU, %d MB at its peak", f.CPUTotal.Seconds(), f.PeakRSS/1024)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// short is the usual abbreviation of a type.
func short(typeURL string) string {
	return map[string]string{
		adsclient.CDS: "CDS", adsclient.EDS: "EDS", adsclient.LDS: "LDS",
		adsclient.RDS: "RDS", adsclient.SDS: "SDS", adsclient.ECDS: "ECDS",
	}[typeURL]
}
