package cli

import (
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
)

func TestServicesOfANamespace(t *testing.T) {
	inv := shop()
	inv.Services = append(inv.Services, adminapi.ServiceInfo{
		Host: "idle.other.svc.cluster.local", Namespace: "other", Name: "idle",
	})
	socket := serve(t, &fake{has: inv})
	same(t, run(t, "", "services", "-n", "other", "--socket", socket).out, `HOST                          PORT  READY  CALLERS
idle.other.svc.cluster.local  none  -      -
`)
	got := run(t, "", "services", "-n", "nobodys", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, "Nothing can be called: there is no Service, ServiceEntry or FederatedImport here.\n"+
		"  Next: write one into the configuration folder (docs/kinds)\n")
}

func TestWideServicesAndEndpoints(t *testing.T) {
	inv := shop()
	inv.Services[1].Ports[0].Peers = append(inv.Services[1].Ports[0].Peers,
		adminapi.ServingPeer{Peer: "lab", Name: "l", Unready: "no"})
	socket := serve(t, &fake{has: inv})
	same(t, run(t, "", "services", "-o", "wide", "--socket", socket).out,
		`HOST                                PORT     READY                          CALLERS  ADDRESS                  MTLS  FROM
api.bank.example                    443/TLS  1 of 1                         nobody   240.240.0.3              no    ServiceEntry default/bank (e.yaml:1)
loans.default.svc.cluster.local     80/HTTP  peer bank, peer lab not ready  1        240.240.0.2              yes   FederatedImport default/loans (i.yaml:1)
payments.default.svc.cluster.local  80/HTTP  1 of 2                         1        240.240.0.1 100::f0f0:1  yes   Service default/payments (s.yaml:1)
`)
	same(t, run(t, "", "endpoints", "payments", "-o", "wide", "--socket", socket).out,
		`HOST                                   ADDRESS        STATE      SERVED BY           NODE   ALSO AT
payments.default.svc.cluster.local:80  10.0.0.1:8080  ready      default/payments-1  rack1  -
payments.default.svc.cluster.local:80  10.0.0.2:8080  not ready  default/payments-2  rack2  [fd00::2]:8080
`)
	// whether a peer is well is known as far as it says
	same(t, run(t, "", "endpoints", "loans", "--socket", socket).out,
		`HOST                                ADDRESS                               STATE      SERVED BY
loans.default.svc.cluster.local:80  loans.default.cards.fed.bank.example  -          peer bank
loans.default.svc.cluster.local:80  l                                     not ready  peer lab
`)
}

// Where nobody serves, it is said what is missing: endpoints, or peers of an import.
func TestServedByNobody(t *testing.T) {
	inv := shop()
	inv.Services[1].Ports[0].Peers, inv.Services[2].Ports[0].Endpoints = nil, nil
	socket := serve(t, &fake{has: inv})
	for line, want := range map[string]string{
		"services": `loans.default.svc.cluster.local     80/HTTP  no peer  1
payments.default.svc.cluster.local  80/HTTP  0 of 0   1
`,
		"endpoints payments": "Nobody serves it: no workload that is registered is selected, and no peer serves it.\n",
		"describe loans":     "Port 80/HTTP, no peer:\n",
	} {
		got := run(t, "", append(strings.Fields(line), "--socket", socket)...)
		if expect(t, got, 0); !strings.Contains(got.out, want) {
			t.Errorf("%s:\n%s", line, got.out)
		}
	}
}
