package meshd

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
)

// sidecar is a workload with a proxy of its own.
func sidecar(w snapshot.Workload) snapshot.Workload {
	w.Sidecar = true
	return w
}

// Two workloads of one node, each with an Envoy of its own: neither is told anything of the other.
func TestSidecarsAreToldOfTheirOwnWorkloadAlone(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop", "default/payments"},
		sidecar(workload("payments", "payments", "10.0.0.2")), sidecar(workload("shop", "shop", "10.0.0.1")))
	a.instructed("names for both", func(in *agentapi.Instructions) bool {
		return len(in.DNS) == 2 && len(in.DNS["default/shop"].Hosts["payments.default.svc.cluster.local"]) == 1
	})
	shop, payments := adsAs(t, a.conn, "default/shop"), adsAs(t, a.conn, "default/payments")
	shop.until("shop's own configuration", shop.hasListener("outbound/default/shop"))
	payments.until("payments' own configuration", payments.hasListener("inbound/default/payments"))
	for name, px := range map[string]*proxy{"shop": shop, "payments": payments} {
		if got := len(px.has[envoy.ListenerType]); got != 4 { // its own, and two for what is refused
			t.Errorf("%s has %d listeners: %v", name, got, px.has[envoy.ListenerType])
		}
	}
	eventually(t, "both in the status, acknowledged", func() bool {
		s := p.status()
		var names []string
		for _, px := range s.Proxies {
			names = append(names, px.Name)
		}
		return slices.Equal(names, []string{"node-a/default/payments", "node-a/default/shop"}) && acknowledged(s, 2)
	})

	whole := ads(t, a.conn, nil)
	if r := whole.take(200 * time.Millisecond); r != nil && len(r.Resources) > 0 {
		t.Errorf("the node's own stream was told of %d resources", len(r.Resources))
	}
}

func TestANodeCannotAskAsAnotherWorkload(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments", "default/shop"},
		sidecar(workload("payments", "payments", "10.0.0.2")))
	for _, c := range []struct {
		what     string
		conn     *grpc.ClientConn
		workload []string
	}{
		{"the sidecar of another node", a.conn, []string{"default/payments"}},
		{"a workload of another node", b.conn, []string{"default/shop"}},
		{"an own workload that has no sidecar", a.conn, []string{"default/shop"}},
		{"another node by its name", b.conn, []string{"node-a"}},
		{"a path out of the node", b.conn, []string{"../node-a/default/shop"}},
		{"two at once", b.conn, []string{"default/payments", "default/shop"}},
		{"none by name", b.conn, []string{""}},
	} {
		if err := <-adsAs(t, c.conn, c.workload...).end; status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func adsAs(t *testing.T, conn *grpc.ClientConn, workload ...string) *proxy {
	t.Helper()
	ctx := t.Context()
	for _, w := range workload {
		ctx = metadata.AppendToOutgoingContext(ctx, "isthmus-workload", w)
	}
	return adsOf(t, ctx, conn, nil)
}
