//go:build e2e

package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/waittest"
)

// envoys are the processes of a sidecar agent's Envoys, by directory.
func envoys(t *testing.T, runDir string) map[string]int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(runDir, "envoy-*", "envoy.pid"))
	must(t, err)
	out := map[string]int{}
	for _, path := range found {
		out[filepath.Dir(path)] = pidIn(t, filepath.Dir(path))
	}
	return out
}

// Each workload's Envoy holds the secrets and configuration of that workload alone.
func TestEnvoyOfASidecarKnowsItsWorkloadAlone(t *testing.T) {
	p := newPair(t, "alone")
	p.cfg.Mode = Sidecar
	a, _ := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	if n := len(envoys(t, p.cfg.RunDir)); n != 2 {
		t.Errorf("%d Envoys", n)
	}
	for i, c := range []struct{ workload, has, lacks string }{
		{"default/web-1", `cluster_upstream_cx_total{envoy_cluster_name="web-to-pay"}`, "pay-local"},
		{"default/pay-1", `cluster_upstream_cx_total{envoy_cluster_name="pay-local"}`, "web-to-pay"},
	} {
		px := a.proxies[i]
		if px.workload != c.workload {
			t.Fatalf("proxy %d is of %s", i, px.workload)
		}
		stats := statsOf(t, px)
		if !strings.Contains(stats, c.has) || strings.Contains(stats, c.lacks) {
			t.Errorf("%s: want %s and no %s in\n%s", c.workload, c.has, c.lacks, stats)
		}
	}
	// The agent gives a certificate to that Envoy alone which is the workload's.
	for socket, want := range map[string]string{
		a.proxies[0].runDir: "spiffe://t.example/ns/default/sa/web",
		a.proxies[1].runDir: "spiffe://t.example/ns/default/sa/pay",
	} {
		got := secretsAt(t, envoyproc.AgentSocket(socket), "spiffe://t.example/ns/default/sa/web",
			"spiffe://t.example/ns/default/sa/pay")
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s serves %v, want %s", socket, got, want)
		}
	}
}

func statsOf(t *testing.T, p *proxy) string {
	t.Helper()
	stats, err := p.envoy.Stats(t.Context())
	must(t, err)
	reg := prometheus.NewRegistry()
	reg.MustRegister(constMetrics(stats))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Body.String()
}

// secretsAt asks an agent's socket for secrets and says which come within a while.
func secretsAt(t *testing.T, socket string, names ...string) []string {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	stream, err := secret.NewSecretDiscoveryServiceClient(conn).DeltaSecrets(ctx)
	must(t, err)
	must(t, stream.Send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: names}))
	var got []string
	for {
		r, err := stream.Recv()
		if err != nil {
			slices.Sort(got)
			return got
		}
		for _, x := range r.Resources {
			got = append(got, x.Name)
		}
	}
}

// A sidecar ends with its workload's namespace and starts with the next one; the others' go on.
func TestEnvoyOfASidecarFollowsItsNamespace(t *testing.T) {
	p := newTrio(t, "sidefollow")
	p.cfg.Mode = Sidecar
	_, stop := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call from web", p.call)
	eventually(t, 10*time.Second, "a call from shop", func() error { return call(p.shop) })
	before := envoys(t, p.cfg.RunDir)
	calls := load(2, p.call)
	vanish(t, p.shop)
	p.reported(t, 2)
	eventually(t, 5*time.Second, "the end of shop's Envoy", func() error {
		if n := living(before); n != 2 {
			return fmt.Errorf("%d live", n)
		}
		return nil
	})
	for range 2 { // at first it is noticed that the namespace went, then it is replaced at once
		reappear(t, p.shop)
		p.joinShop(t)
		plain := load(1, func() error { return notHeard(p.shop, "http://10.79.1.3:8080/") })
		eventually(t, 5*time.Second, "a call from the shop that returned", func() error { return call(p.shop) })
		waittest.Quiet(300 * time.Millisecond) // it may work again sooner than plaintext was tried once
		never(t, "plaintext from the returned shop", plain)
		vanish(t, p.shop)
	}
	reappear(t, p.shop)
	p.joinShop(t)
	eventually(t, 5*time.Second, "a call from the shop that returned", func() error { return call(p.shop) })
	never(t, "calls from web meanwhile", calls)
	after := envoys(t, p.cfg.RunDir)
	same := 0
	for dir, pid := range after {
		if before[dir] == pid {
			same++
		}
	}
	if same != 2 || len(after) != 3 {
		t.Errorf("Envoys before %v, after %v", before, after)
	}
	stop()
	if n := living(after); n != 0 {
		t.Errorf("%d Envoys live after the agent was told to stop", n)
	}
}

// living counts processes that have not ended.
func living(pids map[string]int) (n int) {
	for _, pid := range pids {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil &&
			!strings.Contains(string(text), ") Z ") {
			n++
		}
	}
	return n
}

func TestEnvoysOfSidecarsOutliveTheAgent(t *testing.T) {
	p := newPair(t, "sideoutlive")
	p.text += "mode: sidecar\n"
	settings := p.file(t)
	agent := startAgent(t, settings)
	eventually(t, 10*time.Second, "a call", p.call)
	before := envoys(t, p.cfg.RunDir)
	calls, plain := load(2, p.call), p.noPlaintext()
	streams := p.control.streamCount()
	end(agent, syscall.SIGKILL)
	waittest.Pace(200 * time.Millisecond)
	startAgent(t, settings)
	eventually(t, 10*time.Second, "both Envoys are back at the control plane", func() error {
		if p.control.streamCount() < streams+2 {
			return errors.New("not yet")
		}
		return nil
	})
	waittest.Quiet(200 * time.Millisecond)
	never(t, "calls through the agent's death", calls)
	never(t, "plaintext", plain)
	if after := envoys(t, p.cfg.RunDir); !maps.Equal(before, after) {
		t.Errorf("Envoys before %v, after %v", before, after)
	}
}
