package agents

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRationOfCertificates(t *testing.T) {
	r := (&quotas{of: map[string]*quota{}}).node("n")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	take := func(identity string, hosted int) (n int) {
		for r.certificate(identity, time.Hour, hosted, now) == nil {
			n++
		}
		return n
	}
	// An agent that is started ten times in a row has every certificate each time; then it waits, and other identities
	// do not.
	for range 10 {
		for i := range 10 {
			must(t, r.certificate(fmt.Sprint("w", i), time.Hour, 10, now))
		}
	}
	if n := take("w1", 10); n != 0 {
		t.Errorf("%d more of one identity", n)
	}
	if err := r.certificate("w1", time.Hour, 10, now); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too many: %v", err)
	}
	// A renewal at half its life is always there.
	for range 100 {
		now = now.Add(30 * time.Minute)
		for i := range 10 {
			must(t, r.certificate(fmt.Sprint("w", i), time.Hour, 10, now))
		}
	}
	// Short lives are renewed as well.
	for range 100 {
		now = now.Add(5 * time.Second)
		for i := range 10 {
			must(t, r.certificate(fmt.Sprint("w", i), 10*time.Second, 10, now))
		}
	}
	// However many identities it invents, the node as a whole has its bound, and what is kept of them too.
	now = now.Add(24 * time.Hour)
	n := 0
	for i := range 5000 {
		n += take(fmt.Sprint("x", i), 10)
	}
	if n != 110 {
		t.Errorf("%d certificates at once for a node of 10 workloads, want 110", n)
	}
	now = now.Add(time.Hour)
	if must(t, r.certificate("y", time.Hour, 10, now)); len(r.each) > 40 {
		t.Errorf("%d identities are kept", len(r.each))
	}
}

// A new stream is no way around a node's quota.
func TestRationsOutliveStreams(t *testing.T) {
	rs := quotas{of: map[string]*quota{}}
	first := rs.node("n")
	first.reports.Allow()
	if again := rs.node("n"); again != first || again.reports.Tokens() > 39.5 {
		t.Error("its quota begins anew")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
