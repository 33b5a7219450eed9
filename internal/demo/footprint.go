package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Growth that is tolerated in a soak test: caches fill, buffers find their size, connections come and go.
const (
	growthRSS        = 64 << 10 // KB
	growthFiles      = 64
	growthGoroutines = 64
)

// soakAdmin is the administrator with whose certificate the soak test reads metrics.
const soakAdmin = "soak"

// footprint is the resource use of a process.
type footprint struct{ rss, files, goroutines int } // Envoy has none of the last

// footprints returns the footprints of the control planes, agents and Envoys, by name.
func (w *world) footprints(ctx context.Context) (map[string]footprint, error) {
	out := map[string]footprint{}
	for _, m := range w.plan.meshes {
		control, err := w.controlMetrics(ctx, m)
		if err != nil {
			return nil, err
		}
		for name, client := range map[string]metricsClient{
			controlName(m): control,
			nodeName(m):    agentMetrics(w.files.mesh(m.name, "node", "run", "metrics.sock")),
			gatewayName(m): agentMetrics(w.files.mesh(m.name, "gateway", "run", "metrics.sock")),
		} {
			f := footprintOf(w.process(name).PID())
			if f.goroutines, err = client.goroutines(ctx); err != nil {
				return nil, fmt.Errorf("count the goroutines of %s: %w", name, err)
			}
			out[name] = f
		}
		for name, netns := range map[string]string{
			nodeName(m):    w.plan.hostNetns(m),
			gatewayName(m): w.plan.gatewayNetns(m),
		} {
			if pid := envoyIn(netns); pid > 0 {
				out[name+"'s Envoy"] = footprintOf(pid)
			}
		}
	}
	return out, nil
}

func footprintOf(pid int) (f footprint) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	files, _ := os.ReadDir(filepath.Join(dir, "fd"))
	f.files = len(files)
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			f.rss, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
		}
	}
	return f
}

// metricsClient reads one process's metrics.
type metricsClient struct {
	url  string
	http *http.Client
}

func agentMetrics(socket string) metricsClient {
	return metricsClient{"http://agent/metrics", &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// controlMetrics reads a control plane's metrics with a newly issued administrator certificate.
func (w *world) controlMetrics(ctx context.Context, m mesh) (metricsClient, error) {
	key, csr, err := identity.NewRequest()
	if err != nil {
		return metricsClient{}, err
	}
	r, err := call[adminapi.AdminCertRequest, agentapi.SignResponse](ctx, w.admin(m), "AdminCert",
		&adminapi.AdminCertRequest{Name: soakAdmin, CSR: csr})
	if err != nil {
		return metricsClient{}, err
	}
	own, err := identity.NewSVID(key, r.Chain, r.Roots, time.Now())
	if err != nil {
		return metricsClient{}, err
	}
	return metricsClient{
		"https://" + hostPort(m.host, wellknown.MetricsPort) + "/metrics",
		&http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   identity.ControlTLS(func() *identity.SVID { return own }),
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return dial(ctx, w.plan.hostNetns(m), address)
			},
		}},
	}, nil
}

func (c metricsClient) goroutines(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, fmt.Errorf("%s tells no go_goroutines: %s", c.url, resp.Status)
}

// envoyIn returns the PID of the Envoy in a network namespace, or 0.
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

// reportGrowth prints the footprints before and after, and returns an error that names processes that grew too much.
func reportGrowth(say printer, before, after map[string]footprint) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "process\tmemory before\tafter\tfiles before\tafter\tgoroutines before\tafter\t")
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(after)) {
		x, y := before[name], after[name]
		fmt.Fprintf(t, "%s\t%d MB\t%d MB\t%d\t%d\t%d\t%d\t\n", name, x.rss>>10, y.rss>>10, x.files, y.files,
			x.goroutines, y.goroutines)
		if y.rss-x.rss > growthRSS || y.files-x.files > growthFiles || y.goroutines-x.goroutines > growthGoroutines {
			errs = append(errs,
				fmt.Errorf("soak: %s grew from %d to %d MB, from %d to %d open files, from %d to %d goroutines",
					name, x.rss>>10, y.rss>>10, x.files, y.files, x.goroutines, y.goroutines))
		}
	}
	t.Flush()
	say.text(b.String())
	return errors.Join(errs...)
}
