// Package spine measures the pure middle of the control plane: what one recompile of a whole mesh costs, and what one
// proxy's configuration costs to make. `go test -run - -bench . -benchmem ./bench/spine`.
package spine

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/view"
)

var plan = genmesh.Plan{Services: 1000, Endpoints: 5, Proxies: 200, Callable: 5, Seed: 1}

// TestGeneratedMeshMeansWhatItSays holds the generator against the real spine: no findings, and each proxy is told of
// exactly the services that it may call.
func TestGeneratedMeshMeansWhatItSays(t *testing.T) {
	small := genmesh.Plan{Services: 60, Endpoints: 2, Proxies: 10, Callable: 3, Seed: 1}
	mesh, findings := compile.Mesh(snap(t, small))
	if len(findings) > 0 {
		t.Errorf("finding: %s", findings[0])
	}
	for p := range small.Proxies {
		v := view.For(mesh, fmt.Sprintf("node-%04d", p))
		if v == nil {
			t.Fatalf("proxy %d is unknown", p)
		}
		if got := envoy.Build(v).Sets; len(got) != 3 {
			t.Errorf("proxy %d is told of %d endpoint sets, want 3", p, len(got))
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	dir := write(b, plan)
	for b.Loop() {
		load(b, dir)
	}
}

// BenchmarkFileChange is from the write of one file until the source has the new configuration, its waiting included.
func BenchmarkFileChange(b *testing.B) {
	mesh, err := genmesh.New(plan)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	if err := mesh.Write(dir); err != nil {
		b.Fatal(err)
	}
	src, err := file.New(b.Context(), file.Config{Dir: dir, Validate: schema.New().Validate})
	if err != nil {
		b.Fatal(err)
	}
	src.Load(b.Context())
	go src.Run(b.Context())
	n := 0
	change := func() {
		s := mesh.Services[n%len(mesh.Services)]
		s.Endpoints[0] = genmesh.Fresh(n)
		n++
		aside := filepath.Join(b.TempDir(), "next")
		if err := os.WriteFile(aside, []byte(s.YAML()), 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.Rename(aside, filepath.Join(dir, s.File())); err != nil {
			b.Fatal(err)
		}
		<-src.Updates()
	}
	change() // it watches
	for b.Loop() {
		change()
	}
}

func BenchmarkCompile(b *testing.B) {
	s := snap(b, plan)
	b.ReportAllocs()
	for b.Loop() {
		compile.Mesh(s)
	}
}

// BenchmarkViews is what every recompile costs for proxies whose view did not change: all 200 of them.
func BenchmarkViews(b *testing.B) {
	s := snap(b, plan)
	before, _ := compile.Mesh(s)
	after, _ := compile.Mesh(s)
	for b.Loop() {
		for name := range after.Proxies {
			if !view.Equal(view.For(before, name), view.For(after, name)) {
				b.Fatal("a view changed by itself")
			}
		}
	}
}

func BenchmarkProxy(b *testing.B) {
	mesh, _ := compile.Mesh(snap(b, plan))
	bytes, i := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		v := view.For(mesh, fmt.Sprintf("node-%04d", i%plan.Proxies))
		res := envoy.Build(v)
		bytes += size(res)
		for _, set := range res.Sets {
			bytes += len(envoy.EndpointsFor(v, set, mesh.Endpoints).Body)
		}
		i++
	}
	b.ReportMetric(float64(bytes)/float64(i), "wire-bytes/proxy")
}

func size(r *envoy.Resources) (n int) {
	for _, all := range r.ByType {
		for _, one := range all {
			n += len(one.Body)
		}
	}
	return n
}

func write(tb testing.TB, p genmesh.Plan) string {
	tb.Helper()
	m, err := genmesh.New(p)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	if err := m.Write(dir); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func load(tb testing.TB, dir string) *snapshot.Config {
	tb.Helper()
	cfg, err := file.LoadDir(dir, schema.New().Validate)
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range cfg.Findings {
		if f.Severity == finding.Error {
			tb.Fatal(f)
		}
	}
	return cfg
}

// snap is the snapshot of an invented mesh all of whose nodes have registered.
func snap(tb testing.TB, p genmesh.Plan) *snapshot.Snapshot {
	tb.Helper()
	s := &snapshot.Snapshot{
		Time: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Config: load(tb, write(tb, p)),
		Registry: &snapshot.Registry{}, Roots: []byte("-----BEGIN CERTIFICATE-----\n"), VIPs: map[string]netip.Addr{},
	}
	vip := netip.MustParseAddr("240.240.0.1")
	for _, svc := range snapshot.Of[*corev1.Service](s.Config) {
		s.VIPs[svc.Name+"."+svc.Namespace+".svc.cluster.local"] = vip
		vip = vip.Next()
	}
	for i := range p.Proxies {
		node := fmt.Sprintf("node-%04d", i)
		w := genmesh.Workload(i)
		w.Node = node
		s.Registry.Nodes = append(s.Registry.Nodes, snapshot.Node{
			Name: node, Role: snapshot.RoleNode, Builtin: envoy.BuiltinVersion(),
		})
		s.Registry.Workloads = append(s.Registry.Workloads, w)
	}
	return s
}
