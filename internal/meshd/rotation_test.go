package meshd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (p *plane) caStatus() *adminapi.CAStatusResponse {
	p.t.Helper()
	return ask[adminapi.CAStatusResponse](p.t, p.local(), "CAStatus", &adminapi.Empty{})
}

func (p *plane) caRotate(r adminapi.CARotateRequest) error {
	p.t.Helper()
	_, err := adminapi.Call[adminapi.CARotateRequest, adminapi.CAStatusResponse](soon(p.t), p.local(), "CARotate", &r)
	return err
}

// waitsFor waits until a rotation is at a step and waits for exactly these.
func (p *plane) waitsFor(step string, want ...string) {
	p.t.Helper()
	waittest.Within(p.t, waittest.Patience, "the rotation's step", func() error {
		r := p.caStatus().Rotation
		got := []string{r.Step}
		for _, w := range r.Waits {
			got = append(got, w.What+" "+w.Name+": "+w.Why)
		}
		if !slices.Equal(got, append([]string{step}, want...)) {
			return fmt.Errorf("it is at %q, want %s %q", got, step, want)
		}
		return nil
	})
}

// A rotation from end to end with an agent and an Envoy that follow, an agent that stays away, and a control plane that
// is stopped at every step.
func TestRotationFollowsItsNodes(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	px := secrets(ads(t, a.conn, nil))
	px.until("configured", func() bool { return px.has[envoy.SecretType]["bundle/cards.example"] != "" })
	must(t, b.conn.Close()) // node-b goes

	before := p.caStatus().Roots[0].SHA256
	must(t, p.caRotate(adminapi.CARotateRequest{}))
	if err := p.caRotate(adminapi.CARotateRequest{}); err == nil ||
		!strings.Contains(err.Error(), "under way already") {
		t.Errorf("begun twice: %v", err)
	}
	var next string
	a.instructed("both roots, the old one signs", func(in *agentapi.Instructions) bool {
		certs, err := peerrules.ParseRoots(in.Roots)
		if err != nil || len(certs) != 2 || in.SigningRoot != before {
			return false
		}
		next = spiffe.Fingerprint(certs[1])
		return true
	})
	const away = "node node-b: its agent is not connected"
	p.waitsFor("prepared", "node node-a: its agent has not taken up the new root", away)
	hosts := workload("shop", "shop", "10.0.0.1")
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}})
	px.until("both roots sent", func() bool { return px.rest() >= 0 })
	p.waitsFor("prepared", away)

	// A restart in between changes nothing.
	must(t, p.stop())
	p.start()
	a = p.resume(a.credential)
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}})
	p.waitsFor("prepared", "node node-a: its Envoy is not connected", away)
	px = secrets(ads(t, a.conn, nil))
	px.until("configured again", func() bool { return px.has[envoy.SecretType]["bundle/cards.example"] != "" })
	p.waitsFor("prepared", away)

	// By force without node-b. From then on certificates come from the new root.
	must(t, p.caRotate(adminapi.CARotateRequest{Force: true}))
	a.instructed("the new root signs", func(in *agentapi.Instructions) bool { return in.SigningRoot == next })
	if err := p.caRotate(adminapi.CARotateRequest{Cancel: true}); err == nil ||
		!strings.Contains(err.Error(), "the new root signs already") {
		t.Errorf("cancelled too late: %v", err)
	}
	old := agentapi.CertState{
		SPIFFEID: "spiffe://cards.example/ns/default/sa/shop", Root: before,
		NotAfter: time.Now().Add(time.Hour),
	}
	a.report(agentapi.Report{
		Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next},
		Certs: []agentapi.CertState{old},
	})
	const holds = "node node-b: its agent is not connected, and has certificates under the old root"
	p.waitsFor("activated", "node node-a: replaces its certificates: spiffe://cards.example/ns/default/sa/shop", holds)
	own, err := a.sign("", "")
	must(t, err)
	renewed := old
	renewed.Root = next
	a.report(agentapi.Report{
		Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next},
		Certs: []agentapi.CertState{renewed},
	})
	p.waitsFor("activated", holds)
	// Whoever was left behind at the first step still comes back, by its old certificate and its old roots.
	back := p.resume(b.credential)
	back.report(agentapi.Report{
		Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.2")},
		Roots:     []string{before, next},
	})
	p.waitsFor("done")
	after := p.caStatus()
	if len(after.Roots) != 1 || after.Roots[0].SHA256 != next ||
		!slices.Equal(after.Rotation.Passed, []string{"prepared: node node-b"}) {
		t.Errorf("after: %+v, %+v", after.Roots, after.Rotation)
	}
	// Its connection was opened by a certificate under the old root, and ends with it. A real agent has moved by then.
	wantCode(t, "its conversation", received(t, "its conversation", a.end), codes.Unauthenticated)
	a = p.resume(own)
	a.report(agentapi.Report{
		Workloads: []snapshot.Workload{hosts}, Roots: []string{next}, Certs: []agentapi.CertState{renewed},
	})
	a.instructed("the old root is gone", func(in *agentapi.Instructions) bool {
		certs, err := peerrules.ParseRoots(in.Roots)
		return err == nil && len(certs) == 1
	})
}

// secrets has a proxy ask for the mesh's roots, too.
func secrets(px *proxy) *proxy {
	px.has[envoy.SecretType] = map[string]string{}
	px.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:                envoy.SecretType,
		ResourceNamesSubscribe: []string{"bundle/cards.example"},
	})
	return px
}
