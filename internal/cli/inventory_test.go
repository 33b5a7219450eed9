package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

const (
	paymentsHost = "payments.default.svc.cluster.local"
	loansHost    = "loans.default.svc.cluster.local"
)

// shop is a mesh with a service of two endpoints, one at rest, an import and a host outside.
func shop() adminapi.InventoryResponse {
	edge := adminapi.AccessEdge{
		From: "default/web", To: paymentsHost + ":80", By: []string{"AuthorizationPolicy default/pay (p.yaml:3)"},
	}
	return adminapi.InventoryResponse{
		Services: []adminapi.ServiceInfo{
			{
				Host: "api.bank.example", Namespace: "default", Name: "api.bank.example", External: true,
				Addresses: []string{"240.240.0.3"}, From: []string{"ServiceEntry default/bank (e.yaml:1)"},
				Ports: []adminapi.ServicePort{{
					Number: 443, Protocol: "TLS",
					Endpoints: []adminapi.ServiceEndpoint{{Address: "192.0.2.9:443", Ready: true}},
				}},
			},
			{
				Host: loansHost, Namespace: "default", Name: "loans", Addresses: []string{"240.240.0.2"},
				From: []string{"FederatedImport default/loans (i.yaml:1)"},
				Ports: []adminapi.ServicePort{{
					Number: 80, Protocol: "HTTP", Callers: []string{"spiffe://cards.example/ns/default/sa/web"},
					Peers: []adminapi.ServingPeer{{
						Peer: "bank", Name: "loans.default.cards.fed.bank.example", Weight: 1,
					}},
				}},
			},
			{
				Host: paymentsHost, Namespace: "default", Name: "payments",
				Addresses: []string{"240.240.0.1", "100::f0f0:1"},
				From:      []string{"Service default/payments (s.yaml:1)"},
				Ports: []adminapi.ServicePort{{
					Number: 80, Protocol: "HTTP", MTLS: true,
					Callers: []string{"spiffe://cards.example/ns/default/sa/web"},
					Endpoints: []adminapi.ServiceEndpoint{
						{Address: "10.0.0.1:8080", Workload: "default/payments-1", Node: "rack1", Ready: true},
						{
							Address: "10.0.0.2:8080", Other: "[fd00::2]:8080", Workload: "default/payments-2",
							Node: "rack2",
						},
					},
				}},
			},
		},
		Workloads: []adminapi.WorkloadInfo{
			{
				Namespace: "default", Name: "payments-2", Identity: "spiffe://cards.example/ns/default/sa/payments",
				Node: "rack2", Labels: []string{"app=payments"}, Addresses: []string{"10.0.0.2", "fd00::2"},
				Mode: "STRICT",
				Ports: []adminapi.WorkloadPort{{
					Number: 8080, Protocol: "HTTP", Mode: "STRICT", Hosts: []string{paymentsHost}, Default: "deny",
					Policies: []string{
						"DENY AuthorizationPolicy istio-system/all (d.yaml:1)",
						"ALLOW AuthorizationPolicy default/pay (p.yaml:3)",
					},
				}},
			},
			{
				Namespace: "default", Name: "web", Identity: "spiffe://cards.example/ns/default/sa/web", Node: "rack1",
				Addresses: []string{"10.0.0.5"}, Ready: true, Mode: "PERMISSIVE", Calls: []adminapi.AccessEdge{edge},
			},
		},
	}
}

// fits fails for a line that a terminal of 80 columns breaks.
func fits(t *testing.T, text string) {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestServicesAndEndpoints(t *testing.T) {
	socket := serve(t, &fake{has: shop()})
	got := run(t, "", "services", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `HOST                                PORT     READY      CALLERS
api.bank.example                    443/TLS  1 of 1     nobody
loans.default.svc.cluster.local     80/HTTP  peer bank  1
payments.default.svc.cluster.local  80/HTTP  1 of 2     1
`)
	fits(t, got.out)
	got = run(t, "", "endpoints", "payments", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `HOST                                   ADDRESS        STATE      SERVED BY
payments.default.svc.cluster.local:80  10.0.0.1:8080  ready      default/payments-1
payments.default.svc.cluster.local:80  10.0.0.2:8080  not ready  default/payments-2
`)
	for _, name := range []string{"loans.default", "loans.default.svc", loansHost + ".", "default/loans", "LOANS"} {
		got := run(t, "", "endpoints", name, "--socket", socket)
		expect(t, got, 0)
		if !strings.Contains(got.out, "peer bank") {
			t.Errorf("endpoints of %s:\n%s", name, got.out)
		}
	}
	expect(t, run(t, "", "endpoints", "paymets.default", "--socket", socket), 65,
		`there is no service "paymets.default" (did you mean `+paymentsHost+"?)", "Next: isthmus services")
	got = run(t, "", "endpoints", "loans", "--socket", socket, "-o", "json")
	same(t, got.out, `{
  "endpoints": [
    {
      "host": "loans.default.svc.cluster.local",
      "port": 80,
      "address": "loans.default.cards.fed.bank.example",
      "ready": true,
      "peer": "bank"
    }
  ]
}
`)
}

// What a peer cannot serve now is not called ready anywhere.
func TestUnreadyPeer(t *testing.T) {
	inv := shop()
	inv.Services[1].Ports[0].Peers[0].Unready = "peer bank lets nothing of this mesh through"
	socket := serve(t, &fake{has: inv})
	for line, want := range map[string]string{
		"services":        loansHost + "     80/HTTP  peer bank not ready  1\n",
		"endpoints loans": "not ready  peer bank\n",
		"describe loans": `
Port 80/HTTP, peer bank not ready:
  peer bank, weight 1, priority 0, as loans.default.cards.fed.bank.example
    not ready: peer bank lets nothing of this mesh through
`,
		"endpoints loans -o json":     `"ready": false`,
		"services -n default -o json": `"unready": "peer bank lets nothing of this mesh through"`,
	} {
		got := run(t, "", append(strings.Fields(line), "--socket", socket)...)
		if expect(t, got, 0); !strings.Contains(got.out, want) {
			t.Errorf("%s:\n%s", line, got.out)
		}
	}
}

// Of what a silent node serves nobody knows whether it is ready.
func TestSilentNode(t *testing.T) {
	inv := shop()
	inv.Services[2].Ports[0].Endpoints[0].Ready, inv.Services[2].Ports[0].Endpoints[0].Silent = false, true
	inv.Workloads[0].Silent = true
	socket := serve(t, &fake{has: inv})
	for line, want := range map[string]string{
		"services":                    paymentsHost + "  80/HTTP  0 of 2     1\n",
		"endpoints payments":          "10.0.0.1:8080  node silent  default/payments-1\n",
		"describe payments":           "  10.0.0.1:8080  node silent  default/payments-1\n",
		"describe default/payments-2": "  workload   default/payments-2, node silent\n",
	} {
		got := run(t, "", append(strings.Fields(line), "--socket", socket)...)
		if expect(t, got, 0); !strings.Contains(got.out, want) {
			t.Errorf("%s:\n%s", line, got.out)
		}
	}
}

// A short name that two namespaces have stands for neither.
func TestShortNameOfTwo(t *testing.T) {
	services := append(shop().Services, adminapi.ServiceInfo{
		Host: "payments.other.svc.cluster.local", Namespace: "other", Name: "payments",
	})
	if host, err := findHost(services, "payments"); err == nil {
		t.Errorf("payments stands for %s", host)
	}
	if host, err := findHost(services, "payments.other"); err != nil || host != "payments.other.svc.cluster.local" {
		t.Errorf("payments.other stands for %s, %v", host, err)
	}
	if host, err := findHost(services, "default/api.bank.example"); err == nil {
		t.Errorf("the short name of a host outside stands for %s", host)
	}
	workloads := append(shop().Workloads, adminapi.WorkloadInfo{Namespace: "other", Name: "web"})
	for name, want := range map[string]string{
		"web":       `there is no workload "web" (did you mean default/web?)`,
		"weeb":      `there is no workload "weeb" (did you mean default/web?)`,
		"other/wbe": `there is no workload "other/wbe" (did you mean other/web?)`,
	} {
		if w, err := findWorkload(workloads, name); err == nil || err.Error() != want {
			t.Errorf("%s stands for %s, %v; want %s", name, w.Key(), err, want)
		}
	}
	if w, err := findWorkload(workloads, "other/web"); err != nil || w.Key() != "other/web" {
		t.Errorf("other/web stands for %s, %v", w.Key(), err)
	}
}

func TestAccessOfNames(t *testing.T) {
	inv := shop()
	f := &fake{has: inv, access: adminapi.AccessResponse{Edges: inv.Workloads[1].Calls}}
	socket := serve(t, f)
	for _, line := range []string{
		"--to payments", "--to payments.default:80", "--from web",
		"--from default/web --to " + paymentsHost + ":80",
	} {
		got := run(t, "", append([]string{"access", "--socket", socket}, strings.Fields(line)...)...)
		expect(t, got, 0)
		if !strings.Contains(got.out, "default/web  "+paymentsHost+":80") {
			t.Errorf("access %s:\n%s", line, got.out)
		}
	}
	for line, want := range map[string]string{
		"--to payment":      `there is no service "payment" (did you mean ` + paymentsHost + "?)",
		"--to zzz":          `there is no service "zzz"`,
		"--to payments:81":  paymentsHost + " has no port 81; it has 80",
		"--from default/wb": `there is no workload "default/wb" (did you mean default/web?)`,
	} {
		expect(t, run(t, "", append([]string{"access", "--socket", socket}, strings.Fields(line)...)...), 65, want)
	}
	got := run(t, "", "access", "--socket", socket, "--to", "loans")
	expect(t, got, 0)
	same(t, got.out, "Nobody may call loans.\n  Next: isthmus describe loans\n")
	got = run(t, "", "access", "--socket", socket, "--from", "payments-2")
	same(t, got.out, "payments-2 may call nothing.\n  Next: isthmus describe payments-2\n")
	got = run(t, "", "access", "--socket", socket, "--from", "web", "--to", "loans")
	same(t, got.out, "web may not call loans.\n  Next: isthmus describe loans\n")
}

// Of a service of several ports one is asked for.
func TestAccessOfOnePort(t *testing.T) {
	inv := shop()
	inv.Services[2].Ports = append(inv.Services[2].Ports, adminapi.ServicePort{Number: 90, Protocol: "TCP"})
	edges := append(slices.Clone(inv.Workloads[1].Calls),
		adminapi.AccessEdge{From: "default/web", To: paymentsHost + ":90", By: []string{"x"}},
		adminapi.AccessEdge{From: "default/payments-2", To: paymentsHost + ":80", By: []string{"x"}})
	socket := serve(t, &fake{has: inv, access: adminapi.AccessResponse{Edges: edges}})
	for line, want := range map[string]string{
		"--to payments:90":            "default/web  " + paymentsHost + ":90  x\n",
		"--from payments-2":           "default/payments-2  " + paymentsHost + ":80  x\n",
		"--from web --to payments:90": "default/web  " + paymentsHost + ":90  x\n",
	} {
		got := run(t, "", append([]string{"access", "--socket", socket}, strings.Fields(line)...)...)
		if _, rows, _ := strings.Cut(got.out, "\n"); rows != want {
			t.Errorf("access %s:\n%s%s", line, got.out, got.err)
		}
	}
}

func TestDescribe(t *testing.T) {
	f := &fake{has: shop(), status: adminapi.StatusResponse{Findings: []finding.Finding{
		{
			Code: "ISM0042", Severity: finding.Error,
			Object: kind.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "pay"}, Message: "no.",
			Remedy: "mend it.",
		},
		{
			Code: "ISM0060", Severity: finding.Error,
			Object: kind.Key{Kind: "FederatedExport", Namespace: "default", Name: "x"}, Message: "other.",
		},
	}}}
	f.access.Edges = append(slices.Clone(f.has.Workloads[1].Calls), adminapi.AccessEdge{
		From: "peer bank: spiffe://bank.example/ns/front/sa/till", To: paymentsHost + ":80",
		By: []string{"FederatedExport default/pay (x.yaml:1)"},
	})
	socket := serve(t, f)
	got := run(t, "", "describe", "payments-2", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `  workload   default/payments-2, not ready
  identity   spiffe://cards.example/ns/default/sa/payments
  node       rack2
  addresses  10.0.0.2 fd00::2
  labels     app=payments

Ports:
  8080/HTTP, mutual TLS STRICT
    called as payments.default.svc.cluster.local
    DENY AuthorizationPolicy istio-system/all (d.yaml:1)
    ALLOW AuthorizationPolicy default/pay (p.yaml:3)

May call it:
  default/web → payments.default.svc.cluster.local:80
    by AuthorizationPolicy default/pay (p.yaml:3)
  peer bank: spiffe://bank.example/ns/front/sa/till → payments.default.svc.cluster.local:80
    by FederatedExport default/pay (x.yaml:1)

It may call:
  nothing

Findings:
  ISM0042 error AuthorizationPolicy default/pay
    no.
    Fix: mend it.
`)
	for _, name := range []string{"10.0.0.2", "10.0.0.2:8080", "[fd00::2]:8080"} {
		if by := run(t, "", "describe", name, "--socket", socket); by.out != got.out {
			t.Errorf("describe %s:\n%s%s", name, by.out, by.err)
		}
	}
	got = run(t, "", "describe", "payments.default:80", "--socket", socket)
	if expect(t, got, 0); !strings.Contains(got.out,
		"  peer bank: spiffe://bank.example/ns/front/sa/till → "+paymentsHost+":80") {
		t.Errorf("a caller at a peer is missing:\n%s", got.out)
	}
	f.access.Edges = nil
	got = run(t, "", "describe", "payments.default", "--socket", socket)
	if expect(t, got, 0); !strings.Contains(got.out,
		"  nobody: no AuthorizationPolicy of the workloads behind it allows a caller, or Sidecars hide it\n") {
		t.Errorf("it does not say why nobody may call:\n%s", got.out)
	}
	for i := range f.has.Services[2].Ports {
		f.has.Services[2].Ports[i].Endpoints = nil
	}
	got = run(t, "", "describe", "payments.default", "--socket", socket)
	if expect(t, got, 0); !strings.Contains(got.out, "  nobody: no workload serves it\n") {
		t.Errorf("it does not say that nobody serves it:\n%s", got.out)
	}
	got = run(t, "", "describe", "loans.default", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `  service    loans.default.svc.cluster.local
  addresses  240.240.0.2
  seen by    every namespace
  from       FederatedImport default/loans (i.yaml:1)

Port 80/HTTP, peer bank ready:
  peer bank, weight 1, priority 0, as loans.default.cards.fed.bank.example

May call it:
  nobody

Findings:
  none
`)
	expect(t, run(t, "", "describe", "default/payment-2", "--socket", socket), 65, "did you mean default/payments-2?")
	expect(t, run(t, "", "describe", "lons", "--socket", socket), 65, "did you mean "+loansHost+"?")
}

// What a person types is completed by names of what runs.
func TestCompletion(t *testing.T) {
	f := &fake{
		has: shop(), status: cards(), peers: adminapi.PeerListResponse{Peers: []adminapi.PeerStatus{{Name: "bank"}}},
	}
	f.offers.Entries = []adminapi.CatalogueEntry{{
		Peer:           "bank",
		OfferedService: snapshot.OfferedService{Namespace: "money", Name: "pay"},
	}}
	socket := serve(t, f)
	for line, want := range map[string]string{
		"endpoints ":     paymentsHost,
		"describe ":      "default/payments-2",
		"access --to ":   loansHost,
		"access --from ": "default/web",
		"proxy config ":  "cards-node",
		"catalogue ":     "bank",
		"peer status ":   "bank",
		"peer suspend ":  "bank",
		"peer revoke ":   "bank",
		"peer probe ":    "bank",
		"peer set ":      "bank",
		"node revoke ":   "old-node",
		"import ":        "bank/money/pay",
		"export ":        loansHost,
		"export --to ":   "bank",
		"access -o ":     "json",
	} {
		words := strings.Fields(line)
		last := len(words)
		if strings.HasPrefix(words[last-1], "-") { // what is asked for is the flag's value
			last--
		}
		args := slices.Concat([]string{"__complete"}, words[:last], []string{"--socket", socket}, words[last:],
			[]string{""})
		got := run(t, "", args...)
		// and by no file
		if got.code != 0 || !strings.Contains(got.out, want+"\n") || !strings.HasSuffix(got.out, "\n:4\n") {
			t.Errorf("%q is completed by:\n%s%s", line, got.out, got.err)
		}
	}
	// has all that it takes
	for _, line := range []string{"endpoints a", "describe a", "peer status a", "import a", "export a"} {
		args := append([]string{"__complete"}, strings.Fields(line)...)
		same(t, run(t, "", append(args, "--socket", socket, "")...).out, ":4\n")
	}
	got := run(t, "", "__complete", "endpoints", "--socket", filepath.Join(t.TempDir(), "none"), "")
	if got.code != 0 || !strings.HasPrefix(got.out, ":4\n") {
		t.Errorf("without a control plane: %d\n%s", got.code, got.out)
	}
}

func TestSocketOfTheEnvironment(t *testing.T) {
	socket := serve(t, &fake{has: shop()})
	w := World{Getenv: func(name string) string {
		return map[string]string{"ISTHMUS_SOCKET": socket}[name]
	}}
	expect(t, runAs(t, w, Verbs{}, "services"), 0)
	expect(t, runAs(t, w, Verbs{}, "services", "--socket", socket+"x"), 69)
}

func TestVersionFlag(t *testing.T) {
	got := run(t, "", "--version")
	expect(t, got, 0)
	if whole := run(t, "", "version").out; got.out == "isthmus \n" ||
		!strings.HasPrefix(whole, strings.TrimSuffix(got.out, "\n")+" (") {
		t.Errorf("it says %q, and the command %q", got.out, whole)
	}
}
