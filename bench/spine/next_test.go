package spine

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	istiosec "istio.io/api/security/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/snapshot"
)

// BenchmarkNext is what one change costs to compile in a mesh that was compiled before.
func BenchmarkNext(b *testing.B) {
	for _, p := range []genmesh.Plan{plan, {Services: 5000, Endpoints: 5, Proxies: 1000, Callable: 5, Seed: 1}} {
		s := snap(b, p)
		before := compile.Next(nil, s)
		for _, c := range []struct {
			name   string
			change func(*snapshot.Config, *snapshot.Registry)
		}{
			{"endpoint", func(c *snapshot.Config, _ *snapshot.Registry) {
				e := middle[*networking.WorkloadEntry](c).DeepCopy()
				e.Spec.Address = genmesh.Fresh(1).String()
				put(c, e)
			}},
			{"policy", func(c *snapshot.Config, _ *snapshot.Registry) {
				p := middle[*security.AuthorizationPolicy](c).DeepCopy()
				p.Spec.Rules = []*istiosec.Rule{{From: []*istiosec.Rule_From{{Source: &istiosec.Source{
					Principals: []string{genmesh.TrustDomain + "/ns/callers/sa/" + genmesh.CallerAccount(0)},
				}}}}}
				put(c, p)
			}},
			{"service", func(c *snapshot.Config, _ *snapshot.Registry) {
				s := middle[*corev1.Service](c).DeepCopy()
				s.Name += "-added"
				put(c, s)
			}},
			{"workload", func(_ *snapshot.Config, r *snapshot.Registry) {
				w := genmesh.Workload(p.Proxies)
				w.Node = r.Nodes[0].Name
				r.Workloads = append(slices.Clone(r.Workloads), w)
			}},
			{"readiness", func(_ *snapshot.Config, r *snapshot.Registry) {
				r.Workloads = slices.Clone(r.Workloads)
				r.Workloads[0].Ready = false
			}},
		} {
			after, cfg, reg := *s, *s.Config, *s.Registry
			after.Config, after.Registry = &cfg, &reg
			c.change(&cfg, &reg)
			b.Run(fmt.Sprintf("%s/%dx%d", c.name, p.Services, p.Proxies), func(b *testing.B) {
				b.ReportAllocs()
				begun := used(b)
				n := 0
				for b.Loop() {
					compile.Next(before, &after)
					n++
				}
				// other work on the machine does not count
				b.ReportMetric(float64(used(b)-begun)/float64(n), "cpu-ns/op")
			})
		}
	}
}

// used is the CPU time that this process has used.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// middle is the object in the middle of a list.
func middle[T metav1.Object](c *snapshot.Config) T {
	all := snapshot.Of[T](c)
	return all[len(all)/2]
}

func put(c *snapshot.Config, o metav1.Object) { *c = *c.With(snapshot.PutAll(o)) }
