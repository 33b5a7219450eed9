package meshd

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A node that asks for certificates as fast as it can gets what it may have; another waits no longer for its own.
func TestANodeThatAsksWithoutEndSlowsNobody(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	greedy := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	other := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	for _, a := range []*fakeAgent{greedy, other} {
		a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	}
	var mu sync.Mutex // guards got
	got := map[codes.Code]int{}
	done := make(chan struct{})
	var all sync.WaitGroup
	request := csr(t, newKey(t))
	for range 32 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := agentapi.Client{Conn: greedy.conn}.Sign(soon(t),
					&agentapi.SignRequest{Namespace: "default", ServiceAccount: "shop", CSR: request})
				mu.Lock()
				got[status.Code(err)]++
				mu.Unlock()
			}
		})
	}
	eventually(t, "the greedy one is refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got[codes.ResourceExhausted] >= 100
	})
	var waits []time.Duration
	for range 8 {
		began := time.Now()
		_, err := other.sign("default", "payments")
		must(t, err)
		waits = append(waits, time.Since(began))
	}
	close(done)
	all.Wait()
	slices.Sort(waits)
	t.Logf("the greedy one: %v; the other waits %s, %s at most", got, waits[len(waits)/2], waits[len(waits)-1])
	if got[codes.OK] > 10+2 {
		t.Errorf("it got %v", got)
	}
	if waits[len(waits)/2] > 500*time.Millisecond {
		t.Errorf("another waits %s for a certificate", waits[len(waits)/2])
	}
}

// Reports that come without end are taken in now and then, and the last of them is.
func TestReportsWithoutEnd(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	a := p.agent("node-a", []string{"default/*"})
	generation := func() uint64 { return p.d.loop.Published().Generation }
	a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	before, began := generation(), time.Now()
	const reports = 200
	for i := range reports {
		w := workload("shop", "shop", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))
		a.report(agentapi.Report{Workloads: []snapshot.Workload{w}})
	}
	a.report(agentapi.Report{Workloads: []snapshot.Workload{workload("last", "last", "10.0.9.9")}})
	a.instructed("the last report", func(in *agentapi.Instructions) bool { _, ok := in.DNS["default/last"]; return ok })
	took := time.Since(began)
	if taken, most := int(generation()-before), 40+int(took.Seconds()*10)+5; taken > most {
		t.Errorf("%d of %d reports were carried out in %s, want at most %d", taken, reports, took, most)
	}
}
