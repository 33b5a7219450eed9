package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
)

func TestAllPhasesAgainstAFake(t *testing.T) {
	f := runFake(t, false)
	if f.Endpoint.Count != 6 || len(f.Endpoint.Latencies) < 6 {
		t.Errorf("%d endpoint changes with %d latencies, want 6 and at least 6",
			f.Endpoint.Count, len(f.Endpoint.Latencies))
	}
	if last := f.Endpoint.quantile(1); last <= 0 || last > 2*time.Second {
		t.Errorf("the slowest endpoint change took %v", last)
	}
	if f.Endpoint.BytesConcerned == 0 || f.Types[adsclient.EDS].Resources != 8 || f.Instructions == 0 {
		t.Errorf("4 proxies with 2 services each: %+v", f)
	}
	if f.Add.Count != 2 || f.Policy.Count != 2 {
		t.Errorf("%d adds and %d policy changes, want 2 of each", f.Add.Count, f.Policy.Count)
	}
	if f.Churn.Count < 1 || f.Restart.ResourceBytes != 0 {
		t.Errorf("churn %+v, restart %+v", f.Churn, f.Restart)
	}
	got := f.line()
	if got.EndpointBytesOthers != 0 || got.AddBytesOthers != 0 || got.ReconnectBytes != 0 {
		t.Errorf("bytes to the unconcerned or again: %+v", got)
	}
	if got.BytesPerProxy < 100 || got.SyncS <= 0 || got.RSSMB != 2 {
		t.Errorf("figures %+v", got)
	}
}

func TestGossipIsSeen(t *testing.T) {
	f := runFake(t, true)
	if f.Endpoint.BytesOthers == 0 || f.Add.BytesOthers == 0 {
		t.Errorf("a control plane that tells everyone of every change was not noticed: %+v %+v", f.Endpoint, f.Add)
	}
}

func runFake(t *testing.T, gossips bool) figures {
	t.Helper()
	plan := genmesh.Plan{Services: 6, Endpoints: 2, Proxies: 4, Callable: 2, Seed: 1}
	mesh, err := genmesh.New(plan)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "config")
	if err := writeMesh(dir, mesh); err != nil {
		t.Fatal(err)
	}
	fake := startFake(t, dir, gossips)
	fleet, err := newFleet(t.Context(), fake.admin, fake.address, plan.Proxies)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		opts: options{plan: plan, changes: 6, adds: 2, churn: 300 * time.Millisecond, timeout: 10 * time.Second},
		mesh: mesh, fleet: fleet, subject: fake, configDir: dir, figures: figures{Plan: plan},
	}
	f, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJoinRefusesAnotherRoot(t *testing.T) {
	right, wrong := startFake(t, t.TempDir(), false), startFake(t, t.TempDir(), false)
	if _, err := rig.Join(t.Context(), right.admin, right.address, 0); err != nil {
		t.Fatal(err)
	}
	_, err := rig.Join(t.Context(), right.admin, wrong.address, 0)
	if err == nil || !strings.Contains(err.Error(), "does not show the root") {
		t.Errorf("joined a server with another root: %v", err)
	}
}

func TestReport(t *testing.T) {
	f := figures{
		Plan: genmesh.Plan{Services: 1000, Endpoints: 5, Proxies: 2, Callable: 5},
		Sync: 2500 * time.Millisecond, SyncCPU: 1200 * time.Millisecond, RSS: 150 * 1024,
		Types:     adsclient.Totals{adsclient.CDS: {Messages: 2, Bytes: 20000, Resources: 10}},
		Endpoint:  changes{Count: 1, Latencies: []time.Duration{7 * time.Millisecond, 3 * time.Millisecond}},
		Add:       changes{Count: 1, BytesOthers: 12},
		Reconnect: reconnection{Bytes: 99},
	}
	var out bytes.Buffer
	if err := f.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"×  configuration, per proxy                         ≤ 8 KB    10 KB",
		"×  all connect: until the last is in sync           ≤ 2 s     2.5 s",
		"√  endpoint changed: p99 from the file write        ≤ 50 ms   7 ms",
		"×  service added: sent to proxies not concerned     0 bytes   12 bytes",
		"√  all reconnect: resources sent again              0 bytes   0 bytes",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no row %q in\n%s", want, out.String())
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"services": 1000.0, "proxies": 2.0, "bytes_per_proxy": 10000.0, "sync_s": 2.5, "cpu_s": 1.2, "rss_mb": 150.0,
		"endpoint_p99_ms": 7.0, "endpoint_bytes_others": 0.0, "add_bytes_others": 12.0, "reconnect_bytes": 0.0,
	}
	if len(got) != len(want) {
		t.Errorf("keys %v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %v, want %v", k, got[k], v)
		}
	}
}
