//go:build e2e

package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/snapshot"
)

// refusal runs an agent that must not start.
func refusal(t *testing.T, cfg Config) string {
	t.Helper()
	a, err := New(cfg)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = a.Run(ctx)
	}
	if err == nil {
		t.Fatal("the agent was not refused")
	}
	t.Log(err)
	return err.Error()
}

func TestEnvoyStartRefusals(t *testing.T) {
	p := newPair(t, "refuse")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	token := func(content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, os.Chmod(path, mode))
		return path
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{
			"no envoy", func(c *Config) { c.Envoy.Path = "/nowhere/envoy" },
			"no Envoy at /nowhere/envoy: install the package isthmus-envoy, run `make envoy`",
		},
		{"not envoy", func(c *Config) { c.Envoy.Path = "/bin/true" }, "/bin/true is not Envoy"},
		{
			"health in use", func(c *Config) { c.Health.Address = busy.Addr().String() },
			"health.address " + busy.Addr().String() +
				" is in use: stop what listens there, or choose another address",
		},
		{"open token", func(c *Config) { c.Control.TokenFile = token(p.control.token(), 0o644) }, "run `chmod 600 "},
		{
			"bad token", func(c *Config) { c.Control.TokenFile = token("secret-stuff", 0o600) },
			"as `isthmus token create` printed it",
		},
		{
			"no token", func(c *Config) { c.Control.TokenFile = "" },
			"this node has not joined yet: make a token with `isthmus token create --node node-1`",
		},
		{
			"another node's token", func(c *Config) { c.Name = "node-2" },
			`the token is for node "node-1", the configuration is of node "node-2"`,
		},
		{
			"used token", func(c *Config) {},
			"the token was used before; make a new token with `isthmus token create --node node-1`",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := p.cfg
			dir := newDir(t, "refused")
			cfg.RunDir, cfg.StateDir = dir+"/run", dir+"/state"
			cfg.Workloads = append([]Workload(nil), cfg.Workloads...)
			c.edit(&cfg)
			if got := refusal(t, cfg); !strings.Contains(got, c.want) || strings.Contains(got, "secret-stuff") {
				t.Errorf("want %s", c.want)
			}
		})
	}
}

func TestEnvoySecondAgentIsRefused(t *testing.T) {
	p := newPair(t, "second")
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	if got := refusal(t, p.cfg); !strings.Contains(got, "another agent runs in "+p.cfg.RunDir) {
		t.Error("want: another agent runs")
	}
	must(t, p.call())
}

func TestEnvoyAcceptsTheBootstrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "envoy.json")
	text, err := envoyproc.Bootstrap{
		Node: "n", AgentSocket: "/tmp/a.sock", AdminSocket: "/tmp/b.sock", MaxConnections: 1000, MaxHeapBytes: 1 << 30,
	}.JSON()
	must(t, err)
	must(t, os.WriteFile(path, text, 0o600))
	out, err := exec.Command(needEnvoy(t), "--mode", "validate", "--config-path", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "deprecated") || strings.Contains(string(out), "[warning]") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEnvoyCountsReachReportMetricsAndFile(t *testing.T) {
	p := newPair(t, "counts")
	a, _ := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	eventually(t, 5*time.Second, "ready", func() error { return a.Ready(context.Background()) })
	eventually(t, 5*time.Second, "counts", func() error {
		// The caller's and the callee's ends of each connection both log as a crossing here.
		if c := a.logs.Peers()["shop"]; c.HandshakesOK < 2 || c.Requests < 2 || c.BytesIn == 0 || c.BytesOut == 0 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	text, err := os.ReadFile(filepath.Join(p.cfg.RunDir, "access.shop.log"))
	must(t, err)
	if !strings.Contains(string(text), `"caller":"spiffe://t.example/ns/default/sa/web"`) {
		t.Errorf("the caller is missing in %s", text)
	}
	dial := func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(p.cfg.RunDir, "metrics.sock"))
	}
	socket := http.Client{Transport: &http.Transport{DialContext: dial}}
	for path, wants := range map[string][]string{
		"/metrics": {
			`isthmus_peer_handshakes_total{peer="shop",result="ok"} `, `isthmus_agent_envoy_running 1`,
			`isthmus_agent_control_connected 1`,
			`isthmus_agent_workload_ready{workload="default/pay-1"} 1`,
			`isthmus_agent_certificate_expiry_seconds{spiffe_id="spiffe://t.example/ns/default/sa/web"} `,
		},
		"/metrics/envoy": {
			"# HELP envoy_cluster_upstream_cx_total Connections made.\n# TYPE envoy_cluster_upstream_cx_total counter\n",
			`envoy_cluster_upstream_cx_total{envoy_cluster_name="web-to-pay"} `,
			`envoy_listener_ssl_handshake{envoy_listener_address="`,
			"# TYPE envoy_server_live gauge\nenvoy_server_live 1\n",
		},
	} {
		body := fetch(t, socket, "http://agent"+path)
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %s\n%s", path, want, body)
			}
		}
		if n := strings.Count(body, "\n"); n > 300 {
			t.Errorf("%s has %d lines", path, n)
		} else {
			t.Logf("%s: %d lines", path, n)
		}
	}
	if got := fetch(t, http.Client{}, "http://"+p.cfg.Health.Address+"/readyz"); got != "200 ready\n" {
		t.Errorf("readyz: %s", got)
	}
	if got := fetch(t, http.Client{}, "http://"+p.cfg.Health.Address+"/metrics"); !strings.HasPrefix(got, "404") {
		t.Errorf("metrics on the health port: %s", got)
	}
}

func fetch(t *testing.T, c http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	must(t, err)
	defer resp.Body.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%d ", resp.StatusCode)
	_, err = fmt.Fprint(&b, readAll(t, resp))
	must(t, err)
	return b.String()
}

func TestEnvoyAgentStartsAgainWithoutControlPlaneOrToken(t *testing.T) {
	inBothModes(t, "restart", startsAgain)
}

func startsAgain(t *testing.T, p *pair) {
	_, stop := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	stop()
	p.control.stop()
	must(t, os.Remove(p.cfg.Control.TokenFile))
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "DNS from what was kept", func() error {
		r, err := ask(p.web, "udp", "pay.default.svc.cluster.local.", 1)
		if err == nil && len(r.Answer) != 1 {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
	if body, err := get(p.web, "http://10.79.0.3:8080/"); err == nil {
		t.Errorf("plaintext passed: %q", body)
	}
	p.control.start(p.control.address)
	eventually(t, 15*time.Second, "a call after the control plane returned", p.call)
}

func TestEnvoyGatewayJoins(t *testing.T) {
	needRoot(t)
	f := newFakeControl(t, "gw-1")
	f.role = snapshot.RoleGateway
	dir := newDir(t, "gateway")
	must(t, os.WriteFile(dir+"/token", []byte(f.token()), 0o600))
	cfg, err := parseConfig("gw.yaml", []byte(fmt.Sprintf(`
name: gw-1
runDir: %[1]s/run
stateDir: %[1]s/state
control: {tokenFile: %[1]s/token}
envoy: {path: %[2]s}
health: {address: "off"}
gateway: {serviceAccount: gateway, innerAddress: 10.0.0.1, outerAddress: 10.0.0.2}
`, dir, needEnvoy(t))))
	must(t, err)
	a, _ := runAgent(t, cfg)
	eventually(t, 10*time.Second, "Envoy has its configuration", func() error { return a.Ready(context.Background()) })
	eventually(t, 5*time.Second, "report", func() error {
		if r := f.lastReport(); r.Gateway == nil || r.Gateway.ServiceAccount != "gateway" || !r.Envoy.Running {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
