package meshd

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/envoy"
)

// TestFloodOfChanges changes the configuration ten thousand times in about a second: two hundred files, fifty times
// each, every one a service at another port and who may call it. Memory does not grow with the changes, the proxies are
// not sent each of them, and the last state is with them soon after the last write. It is not parallel: it measures the
// whole process.
func TestFloodOfChanges(t *testing.T) {
	const (
		files, times = 200, 50
		mostMemory   = 64 << 20
		mostLag      = 3 * time.Second
	)
	const entry = `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: payments, namespace: default}
spec: {address: ADDRESS, labels: {app: payments}, serviceAccount: payments}
`
	change := func(n, port int) string {
		return strings.NewReplacer("payments", fmt.Sprintf("flood-%d", n), "port: 80,", fmt.Sprintf("port: %d,", port),
			"ADDRESS", fmt.Sprintf("10.9.0.%d", n+1)).Replace(shopYAML + entry)
	}
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	shop := p.agent("node-a", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	other := p.agent("node-b", []string{"default/*"}, workload("other", "other", "10.0.0.2"))
	a, b := ads(t, shop.conn, nil), ads(t, other.conn, nil)
	a.until("shop's own configuration", a.hasListener("outbound/default/shop"))
	b.until("other's own configuration", b.hasListener("outbound/default/other"))
	for n := range files {
		p.write(fmt.Sprintf("%d.yaml", n), change(n, 1000))
	}
	at := func(port int) func() bool {
		return func() bool {
			for n := range files {
				if a.has[envoy.ClusterType][fmt.Sprintf("default/shop>flood-%d.default.svc.cluster.local:%d", n,
					port)] == "" {
					return false
				}
			}
			return true
		}
	}
	a.until("all services", at(1000))
	known := len(a.has[envoy.ClusterType])
	b.rest()

	peak := watchHeap(t)
	began := time.Now()
	for i := 1; i <= times; i++ {
		for n := range files {
			path := filepath.Join(p.cfg.ConfigDir, fmt.Sprintf("%d.yaml", n))
			must(t, os.WriteFile(path+".new~", []byte(change(n, 1000+i)), 0o644))
			must(t, os.Rename(path+".new~", path))
		}
	}
	wrote := time.Since(began)
	answers := 0
	for !at(1000+times)() || len(a.has[envoy.ClusterType]) != known { // what is gone is gone
		if a.take(100*time.Millisecond) != nil {
			answers++
		}
		if time.Since(began)-wrote > patience {
			t.Fatalf("the last state never came: %d clusters instead of %d", len(a.has[envoy.ClusterType]), known)
		}
	}
	lag := time.Since(began) - wrote
	grown := peak()
	t.Logf("%d changes in %s; the last state %s after; %d answers to one proxy, %d to the other; the heap grew by %d MB",
		files*times, wrote.Round(time.Millisecond), lag.Round(time.Millisecond), answers, b.rest(), grown>>20)
	if lag > mostLag || grown > mostMemory || answers > files*times/10 {
		t.Errorf("too much: the last state %s after, %d answers, %d MB more", lag, answers, grown>>20)
	}
	if n := len(b.has[envoy.ClusterType]); n > 4 { // its own ports, and two for refusals
		t.Errorf("who may call nobody knows of %d clusters", n)
	}
}

// watchHeap looks at what is in use until peak asks by how much it grew at most.
func watchHeap(t *testing.T) (peak func() uint64) {
	t.Helper()
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return sync.OnceValue(func() uint64 {
		close(stop)
		<-done
		return most - min(most, before.HeapInuse)
	})
}
