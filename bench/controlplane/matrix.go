package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// phase is one part of a measurement, as a row of the matrix. Times are from the file's write or, where all connect,
// from the first connection; bytes and messages are all proxies'.
type phase struct {
	Name     string  `json:"phase"`
	Bytes    int     `json:"bytes"`
	Messages int     `json:"messages"` // of discovery
	FirstMS  float64 `json:"first_ms"`
	P50MS    float64 `json:"p50_ms"`
	P99MS    float64 `json:"p99_ms"`
	LastMS   float64 `json:"last_ms"`
	CPUS     float64 `json:"cpu_s"`
	RSSMB    float64 `json:"rss_mb"` // at its end
}

func phaseOf(name string, took []time.Duration, had, has []reading, cpu time.Duration, rssKB int) phase {
	at := func(q float64) float64 { return round(quantile(took, q).Seconds()*1000, 1) }
	p := phase{
		Name: name, FirstMS: at(0), P50MS: at(0.5), P99MS: at(0.99), LastMS: at(1), CPUS: round(cpu.Seconds(), 2),
		RSSMB: round(float64(rssKB)/1024, 1),
	}
	for i, r := range has {
		got := r.ads.Since(had[i].ads).Sum()
		p.Bytes += got.Bytes + r.sync - had[i].sync
		p.Messages += got.Messages
	}
	return p
}

// cell is one mesh of the matrix.
type cell struct {
	Services int     `json:"services"`
	Proxies  int     `json:"proxies"`
	Phases   []phase `json:"phases"`
	// ProxyKB is what one more proxy needs: the growth of RSS since the mesh of the same services with fewer proxies,
	// after the cold connect.
	ProxyKB float64 `json:"kb_per_further_proxy,omitempty"`
}

// The sizes of the matrix. Small ones come first: what follows shows where cost begins to grow.
var (
	matrixServices = []int{100, 1000, 5000}
	matrixProxies  = []int{50, 200, 1000}
)

// matrix measures meshes of all sizes and prints a row for each phase of each, and a line of JSON for each mesh.
func matrix(ctx context.Context, o options) error {
	var cells []cell
	for _, services := range matrixServices {
		for i, proxies := range matrixProxies {
			o.plan.Services, o.plan.Proxies = services, proxies
			progress("%d services, %d proxies", services, proxies)
			f, err := run(ctx, o)
			if err != nil {
				return fmt.Errorf("%d services, %d proxies: %w", services, proxies, err)
			}
			c := cell{Services: services, Proxies: proxies, Phases: f.Phases}
			if i > 0 {
				fewer := cells[len(cells)-1]
				c.ProxyKB = round((c.Phases[0].RSSMB-fewer.Phases[0].RSSMB)*1024/float64(proxies-fewer.Proxies), 0)
			}
			cells = append(cells, c)
		}
	}
	return printMatrix(cells, o)
}

func printMatrix(cells []cell, o options) error {
	fmt.Printf("\n%d endpoints a service, each workload may call %d; client and control plane on the same cores\n\n",
		o.plan.Endpoints, o.plan.Callable)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "services\tproxies\tphase\tKB\tmessages\tfirst ms\tp50\tp99\tlast\tCPU s\tRSS MB\t")
	for _, c := range cells {
		for _, p := range c.Phases {
			fmt.Fprintf(t, "%d\t%d\t%s\t%.0f\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t\n",
				c.Services, c.Proxies, p.Name, float64(p.Bytes)/1000, p.Messages, p.FirstMS, p.P50MS, p.P99MS, p.LastMS,
				p.CPUS, p.RSSMB)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	fmt.Println()
	for _, c := range cells {
		out, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("print the figures: %w", err)
		}
		fmt.Printf("%s\n", out)
	}
	return nil
}
