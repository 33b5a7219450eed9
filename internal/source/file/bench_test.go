package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/schema"
)

// service is a file of one service: a Service, a policy and four workload entries.
func service(n, version int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: ns%[2]d}
spec: {selector: {app: s%[1]d}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: s%[1]d, namespace: ns%[2]d}
spec:
  selector: {matchLabels: {app: s%[1]d}}
  rules:
  - from: [{source: {principals: ["cards.example/ns/ns%[2]d/sa/s%[3]d"]}}]
    to: [{operation: {methods: [GET, POST], paths: ["/v%[4]d/*"]}}]
`, n, n%50, (n+1)%1000, version)
	for i := range 4 {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: s%[1]d-%[3]d, namespace: ns%[2]d}
spec: {address: 10.%[3]d.%[4]d.%[5]d, labels: {app: s%[1]d}, serviceAccount: s%[1]d, ports: {http: 8080}}
`, n, n%50, i, n/250, n%250)
	}
	return b.String()
}

func fill(b *testing.B, files int) string {
	b.Helper()
	dir := b.TempDir()
	for n := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%d.yaml", n)), []byte(service(n, 0)),
			0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// BenchmarkLoad reads 1000 files of 6000 objects for the first time.
func BenchmarkLoad(b *testing.B) {
	dir := fill(b, 1000)
	for b.Loop() {
		c, err := LoadDir(dir, schema.New().Validate)
		if err != nil || c.Objects.Len() != 6000 || len(c.Findings) != 0 {
			b.Fatalf("%d objects, %v, %v", c.Objects.Len(), c.Findings, err)
		}
	}
}

// BenchmarkOneFile changes one file of 1000 and makes the new configuration.
func BenchmarkOneFile(b *testing.B) {
	dir := fill(b, 1000)
	d := offline(dir, nil)
	d.refreshAll(b.Context(), nil, time.Now())
	path := filepath.Join(dir, "s500.yaml")
	version := 0
	for b.Loop() {
		version++
		if err := os.WriteFile(path, []byte(service(500, version)), 0o644); err != nil {
			b.Fatal(err)
		}
		old := d.config
		d.refresh(b.Context(), []string{path}, nil, time.Now().Add(time.Hour))
		if d.config == old || d.config.Objects.Len() != 6000 {
			b.Fatal("nothing changed")
		}
	}
}

// BenchmarkScan looks at 1000 unchanged files, as the poll does.
func BenchmarkScan(b *testing.B) {
	dir := fill(b, 1000)
	d := offline(dir, nil)
	d.refreshAll(b.Context(), nil, time.Now())
	old := d.config
	for b.Loop() {
		d.refreshAll(b.Context(), nil, time.Now())
	}
	if d.config != old {
		b.Fatal("something changed")
	}
}

// BenchmarkOneDocument changes one document of a file of 6000 objects.
func BenchmarkOneDocument(b *testing.B) {
	text := func(version int) []byte {
		var all strings.Builder
		for n := range 1000 {
			v := 0
			if n == 500 {
				v = version
			}
			all.WriteString(service(n, v) + "---\n")
		}
		return []byte(all.String())
	}
	dir := b.TempDir()
	path := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(path, text(0), 0o644); err != nil {
		b.Fatal(err)
	}
	d := offline(dir, nil)
	d.refreshAll(b.Context(), nil, time.Now())
	versions := [][]byte{text(1), text(2)}
	n := 0
	for b.Loop() {
		n++
		if err := os.WriteFile(path, versions[n%2], 0o644); err != nil {
			b.Fatal(err)
		}
		old := d.config
		d.refresh(b.Context(), []string{path}, nil, time.Now().Add(time.Hour))
		if d.config == old || d.config.Objects.Len() != 6000 {
			b.Fatal("nothing changed")
		}
	}
}

// BenchmarkWatch is the time from writing one file of 1000 to the new configuration, the quiet time of 10 ms included.
func BenchmarkWatch(b *testing.B) {
	dir := fill(b, 1000)
	s := open(b, Config{Dir: dir, Validate: schema.New().Validate})
	s.Load(b.Context())
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	version, worst := 0, time.Duration(0)
	if err := os.WriteFile(filepath.Join(dir, "s500.yaml"), []byte(service(500, version)), 0o644); err != nil {
		b.Fatal(err)
	}
	<-s.Updates() // it watches
	for b.Loop() {
		version++
		began := time.Now()
		if err := os.WriteFile(filepath.Join(dir, "s500.yaml"), []byte(service(500, version)), 0o644); err != nil {
			b.Fatal(err)
		}
		if c := <-s.Updates(); c.Objects.Len() != 6000 {
			b.Fatalf("%d objects, %v", c.Objects.Len(), c.Findings)
		}
		worst = max(worst, time.Since(began))
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
