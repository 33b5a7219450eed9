package compile

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// worked is how long this thread has had a processor: unlike the time that passes, no other program's matter.
func worked(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestManyPeerAuthentications: thousands that came together and select the same workloads cost each of them little, and
// the strictest counts.
func TestManyPeerAuthentications(t *testing.T) {
	cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Spec: v1alpha1.MeshSpec{TrustDomain: "m.example"}},
	)}
	for n := range 3_000 {
		pa := &security.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop",
			Name:      fmt.Sprintf("p%04d", n),
		}}
		pa.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": "web"}}
		pa.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{Mode: istiosec.PeerAuthentication_MutualTLS_PERMISSIVE}
		if n == 2_999 {
			pa.Spec.Mtls.Mode = istiosec.PeerAuthentication_MutualTLS_STRICT
		}
		cfg = cfg.With(snapshot.PutAll(pa))
	}
	reg := &snapshot.Registry{}
	for n := range 300 {
		reg.Workloads = append(reg.Workloads, snapshot.Workload{
			Name: fmt.Sprint("web-", n), Namespace: "shop", ServiceAccount: "web", Node: "n",
			Labels: map[string]string{"app": "web"},
			Ports:  []snapshot.WorkloadPort{{Number: 80}},
		})
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := worked(t)
	mesh, findings := Mesh(&snapshot.Snapshot{Config: cfg, Registry: reg})
	if took := worked(t) - began; took > 3*time.Second {
		t.Errorf("it took %s of a processor", took)
	}
	w := mesh.Workloads[model.WorkloadID{Namespace: "shop", Name: "web-7"}]
	if w.Inbound[0].Mode != model.Strict || len(w.Refs) != 2 || len(findings) != 2_999 {
		t.Errorf("mode %s for the sake of %v, %d findings", w.Inbound[0].Mode, w.Refs, len(findings))
	}
}
