// Command density measures the memory of one node's Envoy that serves many workloads, each of which may call many
// others: real namespaces and a real control plane, no traffic.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/bench/meshlab"
	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/retry"
)

type options struct {
	envoy        string
	isthmus      string
	concurrency  int
	workloads    int
	destinations int
}

func main() {
	var o options
	flag.StringVar(&o.envoy, "envoy", os.Getenv("ISTHMUS_ENVOY"), "the Envoy binary; default: $ISTHMUS_ENVOY")
	flag.StringVar(&o.isthmus, "binary", "bin/isthmus", "the isthmus binary")
	flag.IntVar(&o.concurrency, "concurrency", 1, "worker threads of the Envoy")
	flag.IntVar(&o.workloads, "workloads", 50, "workloads on the node")
	flag.IntVar(&o.destinations, "destinations", 10, "services that each may call")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/density:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.destinations >= o.workloads {
		return fmt.Errorf("each of %d workloads cannot call %d others", o.workloads, o.destinations)
	}
	empty, err := measureMemory(ctx, o, 1)
	if err != nil {
		return err
	}
	full, err := measureMemory(ctx, o, o.workloads)
	if err != nil {
		return err
	}
	each := float64(full.RSS-empty.RSS) / 1024 / float64(o.workloads-1)
	whole := float64(full.RSS) / 1024 / float64(o.workloads)
	fmt.Printf("\n%d workloads, each may call %d services, one Envoy with %d worker\n\n"+
		"RSS with one workload    %6.1f MB\nRSS with all             %6.1f MB\na further workload       %6.2f MB\nall of it, a workload    %6.2f MB %s (aim 2.20)\n\n",
		o.workloads, o.destinations, o.concurrency, float64(empty.RSS)/1024, float64(full.RSS)/1024, each, whole,
		mark(whole <= 2.2))
	out, err := json.Marshal(map[string]any{
		"workloads": o.workloads, "destinations": o.destinations, "rss_one_mb": empty.RSS / 1024,
		"rss_mb": full.RSS / 1024, "further_workload_mb": each, "per_workload_mb": whole,
	})
	if err != nil {
		return err
	}
	fmt.Println(string(out))
	return nil
}

func mark(held bool) string {
	if held {
		return "√"
	}
	return "×"
}

// measureMemory runs one node with n workloads and reads its Envoy's memory once everything has arrived.
func measureMemory(ctx context.Context, o options, n int) (u proc.Usage, err error) {
	binary, err := filepath.Abs(o.isthmus)
	if err != nil {
		return u, err
	}
	m := mesh(o, n)
	lab, err := meshlab.Open(meshlab.Config{
		Prefix: "isthmus-t-density", Dir: filepath.Join(os.TempDir(), "isthmus-bench-density"),
		Isthmus: binary, Envoy: o.envoy, Concurrency: o.concurrency, Meshes: []meshlab.Mesh{m},
	})
	if err != nil {
		return u, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, lab.Logs())
		}
		err = errors.Join(err, lab.Close())
	}()
	r, err := lab.Run(ctx, m)
	if err != nil {
		return u, err
	}
	if err := retry.Until(ctx, 90*time.Second, 50*time.Millisecond,
		func(ctx context.Context) error { return complete(ctx, r, n) }); err != nil {
		return u, err
	}
	time.Sleep(3 * time.Second) // what the Envoy needed to take it all in, it gives back
	pid, err := r.Agents["one"].Envoy()
	if err != nil {
		return u, err
	}
	return proc.Read(pid)
}

// complete returns an error that names what is missing: two listeners and a certificate per workload.
func complete(ctx context.Context, r *meshlab.Running, n int) error {
	st, err := meshlab.Call[adminapi.Empty, adminapi.StatusResponse](ctx, r, "Status", &adminapi.Empty{})
	if err != nil {
		return err
	}
	for _, p := range st.Proxies {
		listeners := 0
		for _, t := range p.Types {
			if t.Type == "LDS" && t.Sent == t.Acked {
				listeners = t.Resources
			}
		}
		if listeners >= 2*n && len(p.Certs) >= n {
			return nil
		}
		err = fmt.Errorf("%s has %d of %d listeners and %d of %d certificates", p.Name, listeners, 2*n, len(p.Certs), n)
	}
	return errors.Join(errors.New("the node is not complete"), err)
}

func name(i int) string { return fmt.Sprintf("w-%03d", i) }

// mesh has all services of the full size, and the first n workloads on one node.
func mesh(o options, n int) meshlab.Mesh {
	node := meshlab.Node{Name: "one"}
	for i := range n {
		node.Workloads = append(node.Workloads,
			meshlab.Workload{Name: name(i), Ports: []meshlab.Port{{Name: "http-api", Number: 8080}}})
	}
	m := meshlab.Mesh{Name: "dense", Nodes: []meshlab.Node{node}, Files: map[string]string{}}
	m.Files["mesh.yaml"] = fmt.Sprintf("apiVersion: isthmus.dev/v1alpha1\nkind: Mesh\nmetadata:\n  name: dense\nspec:\n  trustDomain: %s\n"+
		"---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n", m.TrustDomain())
	for i := range o.workloads {
		var callers strings.Builder
		for k := range o.destinations { // who calls it: those just before it
			fmt.Fprintf(&callers, "        - %s/ns/default/sa/%s\n", m.TrustDomain(),
				name((i-k-1+o.workloads)%o.workloads))
		}
		m.Files[name(i)+".yaml"] = fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: %[1]s
  namespace: default
spec:
  selector:
    app: %[1]s
  ports:
  - name: http-api
    port: 80
    targetPort: 8080
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: %[1]s
  namespace: default
spec:
  selector:
    matchLabels:
      app: %[1]s
  action: ALLOW
  rules:
  - from:
    - source:
        principals:
%[2]s`, name(i), callers.String())
	}
	return m
}
