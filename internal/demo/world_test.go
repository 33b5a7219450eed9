package demo

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/samples/probe"
)

// bare is the demo's world with its programs and without any mesh.
func bare(t *testing.T, prefix string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	bin := filepath.Join(t.TempDir(), "isthmus-samples")
	if out, err := exec.Command("go", "build", "-o", bin,
		"../../samples/cmd/isthmus-samples").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := newPlan(prefix)
	l, _, err := lab.Open(lab.Config{Prefix: prefix, Dir: filepath.Join(t.TempDir(), "lab"), Network: p.network()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{plan: p, lab: l, files: files{l.Dir()}, options: Options{Samples: bin, Envoy: "/envoy"}}
	for _, m := range p.meshes {
		if err := w.write(m); err != nil {
			t.Fatal(err)
		}
		for _, wl := range m.workloads {
			if err := w.startProgram(m, wl); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func TestProgramsAnswerInTheirOwnSubnetOnly(t *testing.T) {
	w := bare(t, "isthmus-t-demo")
	get := func(workload, url string) probe.Result {
		t.Helper()
		r, err := w.try(workload, probe.Request{HTTP: &probe.HTTP{Method: "GET", URL: url, Timeout: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	err := retry.Until(t.Context(), 5*time.Second, 20*time.Millisecond, func(context.Context) error {
		if r := get("storefront", "http://10.72.0.12:8080/items"); r.Status != 200 ||
			r.Headers["served-by"] != "catalogue@retail" {
			return errors.New(outcome(r))
		}
		return nil
	})
	if err != nil {
		t.Error("storefront to catalogue:", err)
	}
	if r, err := w.connect("payments", "10.71.0.12:7000"); err != nil ||
		!strings.HasPrefix(r.Body, "TOKENS 1.0 ready") {
		t.Errorf("payments to tokens: %+v, %v", r, err)
	}
	if r := get("storefront", "http://10.71.0.11:8080/healthz"); r.Error == "" {
		t.Errorf("the storefront reached the other mesh: %+v", r)
	}
	if _, err := dial(t.Context(), w.plan.gatewayNetns(w.retail()), "10.71.0.11:8080"); err == nil ||
		cause(err) != "network is unreachable" {
		t.Errorf("retail's gateway to cards' inside: %v", err)
	}
	if _, err := dial(t.Context(), w.plan.gatewayNetns(w.retail()), "198.51.100.11:15443"); err == nil ||
		cause(err) != "connection refused" {
		t.Errorf("gateway to gateway without a listener: %v", err)
	}
	if err := checkKernel(w.plan.stranger()); err != nil {
		t.Error(err)
	}
}

func TestALiveAnswerIsWatchedAndLoadIsCounted(t *testing.T) {
	w := bare(t, "isthmus-t-live")
	_, standby, _ := w.plan.find("standby")
	url := "http://" + netip.AddrPortFrom(standby.address, standby.port).String() + "/v1/charges/"
	if err := retry.Until(t.Context(), 5*time.Second, 20*time.Millisecond, func(ctx context.Context) error {
		conn, err := dial(ctx, w.plan.hostNetns(w.retail()), "10.72.0.14:8080")
		if err == nil {
			conn.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	live, err := w.begin("storefront", probe.Request{Watch: &probe.HTTP{Method: "GET", URL: url + "watch"}})
	if err != nil {
		t.Fatal(err)
	}
	defer live.end()
	if r, err := live.next(t.Context(), 5*time.Second); err != nil || !r.Began || r.Body != "0 charges\n" {
		t.Fatalf("%+v, %v", r, err)
	}
	load, err := w.begin("orders", probe.Request{Load: &probe.Load{
		HTTP: probe.HTTP{Method: "GET", URL: url + "headers", Timeout: time.Second}, Workers: 2,
		Pause: 5 * time.Millisecond,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer load.end()
	waittest.Pace(200 * time.Millisecond)
	if r, err := load.finish(t.Context()); err != nil || r.Failures > 0 || r.ServedBy["standby@retail"] < 10 {
		t.Errorf("%+v, %v", r, err)
	}
	w.process("retail-standby").Kill()
	if r, err := live.next(t.Context(), 5*time.Second); err != nil || r.Began || r.Error == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestProxiesReadyNamesWhatIsMissing(t *testing.T) {
	ok := adminapi.ProxyStatus{
		Name: "n", Role: snapshot.RoleNode, Connected: true, Workloads: []string{"default/a"},
		Envoy: agentapi.EnvoyState{Running: true}, Types: []adminapi.TypeStatus{{Type: "CDS", Sent: "1", Acked: "1"}},
	}
	with := func(change func(*adminapi.ProxyStatus)) []adminapi.ProxyStatus {
		p := ok
		change(&p)
		return []adminapi.ProxyStatus{p}
	}
	for want, proxies := range map[string][]adminapi.ProxyStatus{
		"":                                  {ok},
		"n has not joined":                  nil,
		"n is not connected":                with(func(p *adminapi.ProxyStatus) { p.Connected = false }),
		"the Envoy of n is not running":     with(func(p *adminapi.ProxyStatus) { p.Envoy.Running = false }),
		"n has registered 0 of 1 workloads": with(func(p *adminapi.ProxyStatus) { p.Workloads = nil }),
		"the Envoy of n refuses its CDS: a, b": with(func(p *adminapi.ProxyStatus) {
			p.Types = []adminapi.TypeStatus{{Type: "CDS", Nack: "a, b"}}
		}),
		"the Envoy of n has asked for nothing yet": with(func(p *adminapi.ProxyStatus) { p.Types = nil }),
		"the Envoy of n has not acknowledged its LDS": with(func(p *adminapi.ProxyStatus) {
			p.Types = []adminapi.TypeStatus{{Type: "LDS", Sent: "2", Acked: "1"}}
		}),
	} {
		got := ""
		if err := proxiesReady(&adminapi.StatusResponse{Proxies: proxies}, 1, "n"); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
