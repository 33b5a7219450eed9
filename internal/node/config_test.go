package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"isthmus.dev/isthmus/internal/snapshot"
)

func TestLoadConfigNode(t *testing.T) {
	got, err := LoadConfig("testdata/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Name: "cards-node-1", Mode: "node", RunDir: "/run/isthmus/cards-node-1",
		StateDir: "/var/lib/isthmus/cards-node-1",
		Control:  ControlConfig{Addresses: []string{"10.10.0.2:15012"}, TokenFile: "/etc/isthmus/token"},
		Envoy: EnvoyConfig{
			CacheDir: ".cache", Concurrency: 2, MaxConnections: 50000, MaxHeapMiB: 1024, LogLevel: "warning",
			DrainTime: new(5 * time.Second),
		},
		DNS:    DNSConfig{Upstreams: []string{"10.10.0.53"}},
		Health: HealthConfig{Address: "127.0.0.1:15021"},
		Metrics: MetricsConfig{
			Address: "0.0.0.0:15020",
			Allow:   []string{"spiffe://cards.example/ns/monitoring/sa/prometheus"},
		},
		Capture: CaptureConfig{
			ExcludeOutboundPorts: []uint16{123}, ExcludeOutboundCIDRs: []string{"192.0.2.0/24", "2001:db8::/32"},
			ExcludeInboundPorts: []uint16{9100}, LeaveOpen: new(time.Hour),
		},
		Workloads: []Workload{
			{
				Name: "payments-1", Namespace: "default", ServiceAccount: "payments",
				Labels: map[string]string{"app": "payments"}, Netns: "/run/netns/payments",
				Addresses: []netip.Addr{netip.MustParseAddr("10.10.1.5")}, Ports: []Port{{Name: "http", Number: 8080}},
				Readiness: &Readiness{
					HTTP: &Probe{Port: 8080, Path: "/ready"}, Period: time.Second, Timeout: 500 * time.Millisecond,
					Failures: 2,
				},
				WorkloadSocket: &WorkloadSocket{
					Path:  "/run/isthmus/cards-node-1/workload/default/payments-1.sock",
					Users: []uint32{1001},
				},
			},
			{
				Name: "tokens-1", Namespace: "default", ServiceAccount: "tokens",
				Labels: map[string]string{"app": "tokens"}, Netns: "/run/netns/tokens",
				Addresses: []netip.Addr{netip.MustParseAddr("10.10.1.6")}, Ports: []Port{{Name: "tcp", Number: 7000}},
				ExcludeInboundPorts: []uint16{9101},
				Readiness: &Readiness{
					TCP: &Probe{Port: 7000}, Period: time.Second, Timeout: time.Second, Failures: 2,
				},
			},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if got.Role() != snapshot.RoleNode {
		t.Errorf("role %q", got.Role())
	}
}

func TestLoadConfigGateway(t *testing.T) {
	got, err := LoadConfig("testdata/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := GatewayConfig{
		ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.10.0.3"),
		OuterAddress: netip.MustParseAddr("172.31.0.2"),
	}
	if got.Role() != snapshot.RoleGateway || *got.Gateway != want {
		t.Errorf("got %q %+v", got.Role(), got.Gateway)
	}
	if got.RunDir != "/run/isthmus/gateway" {
		t.Errorf("run dir %q", got.RunDir)
	}
}

// Every refusal has a file, which begins with what must be said about it.
func TestLoadConfigRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			want := file + strings.TrimPrefix(first, "# want: ")
			_, err = LoadConfig(file)
			if err == nil || !strings.Contains("\n"+err.Error()+"\n", "\n"+want+"\n") {
				t.Errorf("want %s\ngot  %v", want, err)
			}
		})
	}
}

func FuzzLoadConfig(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := parseConfig("fuzz.yaml", text)
		if err == nil && (cfg.Name == "" || (cfg.Gateway == nil) == (len(cfg.Workloads) == 0)) {
			t.Errorf("accepted %+v", cfg)
		}
	})
}

// A workload excludes ports of its own beside those of all.
func TestExcludedPortsOfAWorkload(t *testing.T) {
	cfg, err := LoadConfig("testdata/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	common, err := cfg.Capture.rules()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]uint16{{9100}, {9100, 9101}} {
		if got := cfg.Workloads[i].rules(common).ExcludeInboundPorts; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", cfg.Workloads[i].Name, got, want)
		}
	}
	if cfg.Workloads[0].rules(nil) != nil {
		t.Error("a workload is captured though capture is off")
	}
}
