package draft

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/yamltest"
)

// draftWorld is mesh cards with the live peer retail, some services and who serves them.
func draftWorld(t *testing.T, more ...string) *snapshot.Snapshot {
	t.Helper()
	root, err := os.ReadFile("../../stories/testdata/roots/retail.pem")
	must(t, err)
	text := `apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: cards}
spec: {trustDomain: cards.example}
---
apiVersion: isthmus.dev/v1alpha1
kind: MeshPeer
metadata: {name: retail}
spec:
  trustDomain: retail.example
  knownAs: cards
  gatewayAddresses: ["192.0.2.2:15443"]
  gatewayIDs: ["spiffe://retail.example/ns/isthmus-system/sa/gateway"]
  bundle:
    refresh: false
    inline: |
      ` + strings.ReplaceAll(strings.TrimSpace(string(root)), "\n", "\n      ") + `
` + yamltest.Service("money", "pay", "pay", "name: http, port: 80, targetPort: 8080") +
		yamltest.Service("money", "ledger", "pay", "name: tcp, port: 5432, targetPort: 5432") +
		yamltest.Service("money", "both", "pay", "name: http, port: 80, targetPort: 8080",
			"name: http-admin, port: 81, targetPort: 8081") +
		yamltest.Service("front", "web", "web", "name: http, port: 80") +
		yamltest.Service("back", "web", "web", "name: http, port: 80") + strings.Join(more, "")
	f := istioyaml.Decode("mesh.yaml", []byte(text), schema.New().Validate, nil)
	for _, b := range f.Findings {
		t.Errorf("%s", b)
	}
	var change snapshot.Change
	for _, o := range f.Objects {
		change.Put(o)
	}
	cfg := (&snapshot.Config{}).With(change)
	serve := func(name, namespace, address string, ports ...uint16) snapshot.Workload {
		w := snapshot.Workload{
			Name: name, Namespace: namespace, ServiceAccount: name, Node: "rack", Ready: true,
			Labels:    map[string]string{"app": name},
			Addresses: []netip.Addr{netip.MustParseAddr(address)}, Netns: "/run/netns/" + name,
		}
		for _, p := range ports {
			w.Ports = append(w.Ports, snapshot.WorkloadPort{Number: p})
		}
		return w
	}
	return &snapshot.Snapshot{
		Time: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Config: cfg, Roots: []byte("roots"),
		Registry: &snapshot.Registry{
			Nodes: []snapshot.Node{
				{
					Name: "edge", Role: snapshot.RoleGateway, Reached: netip.MustParseAddr("10.0.0.9"),
					Gateway: &snapshot.GatewayInfo{
						ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.0.0.1"),
						OuterAddress: netip.MustParseAddr("192.0.2.1"),
					},
				},
				{Name: "rack", Role: snapshot.RoleNode},
			},
			Workloads: []snapshot.Workload{
				serve("pay", "money", "10.0.0.11", 8080, 8081, 5432),
				serve("web", "front", "10.0.0.12", 80),
			},
		},
		Peers: map[string]snapshot.PeerState{"retail": {Catalogue: &snapshot.Catalogue{
			Sequence: 1,
			Services: []snapshot.OfferedService{
				{Name: "orders", Namespace: "shop", Port: 80, Protocol: "HTTP"},
				{Name: "queue", Namespace: "shop", Port: 5672, Protocol: "TCP"},
				{Name: "stock", Namespace: "shop", Port: 80, Protocol: "GRPC"},
				{Name: "stock", Namespace: "depot", Port: 80, Protocol: "HTTP"},
			},
		}}},
		VIPs: map[string]netip.Addr{},
	}
}

func TestExportDraft(t *testing.T) {
	got, err := Export(draftWorld(t), &adminapi.ExportDraftRequest{
		Service: "pay", Peer: "retail", Callers: []string{"shop/storefront"}, Methods: []string{"GET"},
		Paths: []string{"/v1/*"},
	})
	must(t, err)
	const want = `apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata:
  name: pay-retail
  namespace: money
spec:
  port: 80
  service: pay
  to:
  - peer: retail
    rules:
    - callers:
      - spiffe://retail.example/ns/shop/sa/storefront
      methods:
      - GET
      paths:
      - /v1/*
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: pay-retail
  namespace: money
spec:
  rules:
  - from:
    - source:
        principals:
        - retail.example/ns/shop/sa/storefront
    to:
    - operation:
        methods:
        - GET
        paths:
        - /v1/*
        ports:
        - "8080"
  selector:
    matchLabels:
      app: pay
`
	if got.YAML != want {
		t.Errorf("got\n%s", got.YAML)
	}
	if len(got.Findings) != 0 || len(got.Notes) != 0 || got.File != "export-money-pay-retail.yaml" ||
		len(got.Objects) != 2 ||
		got.Objects[0].Stands != "" {
		t.Errorf("%+v", got)
	}

	// Written as it is, it is drafted again to the letter, the policy too.
	again, err := Export(draftWorld(t, "---\n"+got.YAML), &adminapi.ExportDraftRequest{
		Service: "money/pay:80", Peer: "retail", Callers: []string{"shop/storefront"}, Methods: []string{"GET"},
		Paths: []string{"/v1/*"},
	})
	must(t, err)
	if again.YAML != want || !again.Objects[0].Same || !again.Objects[1].Same ||
		!strings.HasPrefix(again.Objects[1].Stands, "mesh.yaml:") {
		t.Errorf("%+v", again)
	}
	wider, err := Export(draftWorld(t, "---\n"+got.YAML), &adminapi.ExportDraftRequest{Service: "pay", Peer: "retail"})
	must(t, err)
	if wider.Objects[0].Same || wider.Objects[0].Stands == "" ||
		!strings.Contains(wider.YAML, "- retail.example/*\n") ||
		len(wider.Notes) != 1 || !strings.HasPrefix(wider.Notes[0],
		"Every caller of peer retail may send it every request") {
		t.Errorf("%+v", wider)
	}
}

func TestExportDraftOfRawTCP(t *testing.T) {
	got, err := Export(draftWorld(t), &adminapi.ExportDraftRequest{
		Service: "ledger.money", Peer: "retail",
		As: "books",
	})
	must(t, err)
	for _, part := range []string{
		"  name: books-retail\n", "  alias: books\n  port: 5432\n  service: ledger\n  to:\n  - peer: retail\n---\n",
		"        principals:\n        - cards.example/ns/isthmus-system/sa/gateway\n    to:\n    - operation:\n        ports:\n        - \"5432\"\n",
	} {
		if !strings.Contains(got.YAML, part) {
			t.Errorf("it lacks %q:\n%s", part, got.YAML)
		}
	}
	_, err = Export(draftWorld(t), &adminapi.ExportDraftRequest{
		Service: "ledger", Peer: "retail",
		Methods: []string{"GET"},
	})
	wantCode(t, "methods of raw TCP", err, codes.InvalidArgument)
}

// A policy is drafted only where the workload lets in no call of the peer.
func TestExportDraftNeedsNoPolicy(t *testing.T) {
	admits := yamltest.Policy("money", "pay", `
selector: {matchLabels: {app: pay}}
rules:
- from: [{source: {principals: ["retail.example/ns/shop/sa/storefront"]}}]
`)
	got, err := Export(draftWorld(t, admits), &adminapi.ExportDraftRequest{
		Service: "pay", Peer: "retail", Callers: []string{"spiffe://retail.example/ns/shop/sa/storefront"},
	})
	must(t, err)
	if len(got.Objects) != 1 || strings.Contains(got.YAML, "AuthorizationPolicy") {
		t.Errorf("%s", got.YAML)
	}
}

// Before a workload serves it, the policy comes along, unless the mesh lets in whoever nobody forbids.
func TestExportDraftBeforeItsWorkload(t *testing.T) {
	w := draftWorld(t)
	w.Registry.Workloads = w.Registry.Workloads[1:]
	got, err := Export(w, &adminapi.ExportDraftRequest{
		Service: "pay", Peer: "retail",
		Callers: []string{"shop/storefront"},
	})
	must(t, err)
	if len(got.Objects) != 2 || len(got.Notes) != 1 ||
		!strings.HasPrefix(got.Notes[0], "No workload is behind it yet") {
		t.Errorf("%+v", got)
	}
	open := w.Config.Mesh().DeepCopy()
	open.Spec.DefaultAction = v1alpha1.DefaultAllow
	w.Config = w.Config.With(snapshot.PutAll(open))
	if got, err = Export(w, &adminapi.ExportDraftRequest{
		Service: "pay", Peer: "retail",
		Callers: []string{"shop/storefront"},
	}); err != nil || len(got.Objects) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Callers are written as the peer's gateway asserts them; what is no caller at all is left for the checks to refuse.
func TestCallerID(t *testing.T) {
	for caller, want := range map[string]string{
		"shop/till": "spiffe://retail.example/ns/shop/sa/till", "shop/*": "spiffe://retail.example/ns/shop/*",
		"*":                                "spiffe://retail.example/*",
		"spiffe://other.example/ns/a/sa/b": "spiffe://other.example/ns/a/sa/b", "till": "till",
	} {
		if got := callerID("retail.example", caller); got != want {
			t.Errorf("%s is %s, not %s", caller, got, want)
		}
	}
}

func TestExportDraftRefuses(t *testing.T) {
	const taken = `---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: older, namespace: money}
spec: {service: both, alias: pay, port: 80, to: [{peer: retail, rules: [{}]}]}
`
	for name, tt := range map[string]struct {
		r    adminapi.ExportDraftRequest
		more string
		code codes.Code
		want string
	}{
		"unknown peer": {
			adminapi.ExportDraftRequest{Service: "pay", Peer: "retial"},
			"", codes.NotFound,
			`there is no peer "retial" (did you mean retail?)`,
		},
		"unknown service": {
			adminapi.ExportDraftRequest{Service: "money/pya", Peer: "retail"},
			"", codes.NotFound,
			`no service "money/pya" (did you mean money/pay?)`,
		},
		"two namespaces": {
			adminapi.ExportDraftRequest{Service: "web", Peer: "retail"},
			"", codes.InvalidArgument,
			"back/web, front/web",
		},
		"which port": {
			adminapi.ExportDraftRequest{Service: "both", Peer: "retail"},
			"", codes.InvalidArgument,
			"money/both:PORT, with one of 80, 81",
		},
		"no such port": {
			adminapi.ExportDraftRequest{Service: "both:82", Peer: "retail"},
			"", codes.NotFound,
			"no port 82, but 80, 81",
		},
		"caller elsewhere": {
			adminapi.ExportDraftRequest{
				Service: "pay", Peer: "retail",
				Callers: []string{"spiffe://bank.example/ns/a/sa/b"},
			},
			"",
			codes.FailedPrecondition, "ISM0066",
		},
		"no caller at all": {adminapi.ExportDraftRequest{
			Service: "pay", Peer: "retail",
			Callers: []string{"storefront"},
		}, "", codes.FailedPrecondition, "SPIFFE ID"},
		"a bad method": {
			adminapi.ExportDraftRequest{Service: "pay", Peer: "retail", Methods: []string{"get"}},
			"",
			codes.FailedPrecondition, "methods",
		},
		"a bad alias": {
			adminapi.ExportDraftRequest{Service: "pay", Peer: "retail", As: "Pay Me"},
			"",
			codes.FailedPrecondition, "this would be refused",
		},
		"a taken name": {
			adminapi.ExportDraftRequest{Service: "pay", Peer: "retail"},
			taken,
			codes.FailedPrecondition, "ISM0065",
		},
	} {
		r := tt.r
		_, err := Export(draftWorld(t, tt.more), &r)
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImportDraft(t *testing.T) {
	got, err := Import(draftWorld(t), &adminapi.ImportDraftRequest{
		Peer: "retail", Name: "orders", As: "front/orders",
		Callers: []string{"web"},
	})
	must(t, err)
	const want = `apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata:
  name: orders
  namespace: front
spec:
  callers:
  - web
  from:
  - namespace: shop
    peer: retail
  port: 80
`
	if got.YAML != want || len(got.Findings) != 0 || len(got.Notes) != 0 || got.File != "import-front-orders.yaml" {
		t.Errorf("%+v", got)
	}
	again, err := Import(draftWorld(t, "---\n"+want),
		&adminapi.ImportDraftRequest{Peer: "retail", Name: "orders", As: "front/orders", Callers: []string{"web"}})
	must(t, err)
	if again.YAML != want || !again.Objects[0].Same {
		t.Errorf("%+v", again)
	}
	queue, err := Import(draftWorld(t), &adminapi.ImportDraftRequest{Peer: "retail", Name: "shop/queue"})
	must(t, err)
	if !strings.Contains(queue.YAML, "  port: 5672\n  protocol: TCP\n") ||
		!strings.Contains(queue.YAML, "  callers: []\n") ||
		len(queue.Notes) != 1 || queue.Objects[0].Namespace != "shop" {
		t.Errorf("%+v", queue)
	}
	renamed, err := Import(draftWorld(t),
		&adminapi.ImportDraftRequest{Peer: "retail", Name: "depot/stock", As: "front/shelf", Callers: []string{"wbe"}})
	must(t, err)
	if !strings.Contains(renamed.YAML, "  - name: stock\n    namespace: depot\n    peer: retail\n") ||
		len(renamed.Findings) != 1 ||
		renamed.Findings[0].Code != "ISM0327" {
		t.Errorf("%+v", renamed)
	}
}

func TestImportDraftRefuses(t *testing.T) {
	const other = `---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: orders, namespace: shop}
spec: {port: 80, from: [{peer: bank}], callers: [web]}
`
	for name, tt := range map[string]struct {
		r    adminapi.ImportDraftRequest
		more string
		code codes.Code
		want string
	}{
		"unknown peer": {
			adminapi.ImportDraftRequest{Peer: "retial", Name: "orders"},
			"", codes.NotFound,
			"did you mean retail?",
		},
		"unknown name": {
			adminapi.ImportDraftRequest{Peer: "retail", Name: "oders"},
			"", codes.NotFound,
			`offers no "oders" (did you mean orders?)`,
		},
		"two of the name": {
			adminapi.ImportDraftRequest{Peer: "retail", Name: "stock"},
			"", codes.InvalidArgument,
			"depot/stock, shop/stock",
		},
		"another source": {
			adminapi.ImportDraftRequest{Peer: "retail", Name: "orders"},
			other, codes.InvalidArgument,
			"add peer retail to its spec.from",
		},
		"a bad name": {
			adminapi.ImportDraftRequest{Peer: "retail", Name: "orders", As: "Front/Orders"},
			"",
			codes.FailedPrecondition, "this would be refused",
		},
	} {
		r := tt.r
		_, err := Import(draftWorld(t, tt.more), &r)
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := draftWorld(t)
	w.Peers = nil
	_, err := Import(w, &adminapi.ImportDraftRequest{Peer: "retail", Name: "orders"})
	wantCode(t, "no catalogue yet", err, codes.NotFound)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v", what, err)
	}
}
