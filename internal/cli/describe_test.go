package cli

import (
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// A name that a service and a workload have means the service, and with its namespace the workload.
func TestDescribeOneOfTwo(t *testing.T) {
	inv := shop()
	inv.Workloads = append(inv.Workloads,
		adminapi.WorkloadInfo{Namespace: "default", Name: "payments", Ready: true, Mode: "STRICT"})
	socket := serve(t, &fake{has: inv})
	for name, want := range map[string]string{
		"payments": "  service    " + paymentsHost + "\n", "payments.default": "  service    " + paymentsHost + "\n",
		"default/payments": "  workload   default/payments, ready\n",
	} {
		if got := run(t, "", "describe", name, "--socket", socket); !strings.HasPrefix(got.out, want) {
			t.Errorf("describe %s:\n%s%s", name, got.out, got.err)
		}
	}
}

// What a caller alone is told: what it may call, that nobody calls it, and by whose word.
func TestDescribeACaller(t *testing.T) {
	f := &fake{has: shop()}
	f.access.Edges = slices.Clone(f.has.Workloads[1].Calls)
	socket := serve(t, f)
	got := run(t, "", "describe", "web", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `  workload   default/web, ready
  identity   spiffe://cards.example/ns/default/sa/web
  node       rack1
  addresses  10.0.0.5
  labels     none

Ports:
  none: no Service selects it (mutual TLS elsewhere: PERMISSIVE)

May call it:
  nobody: no Service selects it

It may call:
  payments.default.svc.cluster.local:80

Findings:
  none
`)
	f.has.Workloads[0].Ports[0].Policies = nil
	got = run(t, "", "describe", "payments-2", "--socket", socket)
	if !strings.Contains(got.out, "    no ALLOW policy selects it: the mesh's default is deny\n") {
		t.Errorf("it does not say what the default is:\n%s", got.out)
	}
	f.access.Edges = nil
	got = run(t, "", "describe", "payments-2", "--socket", socket)
	if !strings.Contains(got.out,
		"  nobody: no AuthorizationPolicy that selects it allows a caller, or Sidecars hide it\n") {
		t.Errorf("it does not say why nobody may call:\n%s", got.out)
	}
}

// A service has its own callers and findings, and says which namespaces see it.
func TestDescribeAService(t *testing.T) {
	f := &fake{has: shop(), status: adminapi.StatusResponse{Findings: []finding.Finding{
		{
			Code: "ISM0301", Severity: finding.Warning,
			Object: kind.Key{Kind: "Service", Namespace: "default", Name: "payments"}, Message: "none is ready.",
		},
		{
			Code: "ISM0301", Severity: finding.Warning,
			Object: kind.Key{Kind: "Service", Namespace: "default", Name: "other"}, Message: "none is ready there.",
		},
	}}}
	f.has.Services[2].ExportTo = []string{"default", "books"}
	f.access.Edges = append(slices.Clone(f.has.Workloads[1].Calls),
		adminapi.AccessEdge{From: "default/web", To: loansHost + ":80"})
	got := run(t, "", "describe", "payments.default", "--socket", serve(t, f))
	expect(t, got, 0)
	same(t, got.out, `  service    payments.default.svc.cluster.local
  addresses  240.240.0.1 100::f0f0:1
  seen by    default books
  from       Service default/payments (s.yaml:1)

Port 80/HTTP, 1 of 2 ready:
  10.0.0.1:8080  ready  default/payments-1
  10.0.0.2:8080  not ready  default/payments-2

May call it:
  default/web → payments.default.svc.cluster.local:80
    by AuthorizationPolicy default/pay (p.yaml:3)

Findings:
  ISM0301 warning Service default/payments
    none is ready.
`)
}
