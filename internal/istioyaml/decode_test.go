package istioyaml_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
)

const several = `# a comment alone is no document
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: who, namespace: shop, labels: {app.kubernetes.io/name: x}}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - from: [{source: {notPrincipals: ["a.example/ns/shop/sa/*"]}}]
    when:
    - {key: "request.headers[x-role]", values: ["admin"]}
status: {observedGeneration: "1"}
---
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, creationTimestamp: null}
  spec: {ports: [{port: 80, targetPort: http, appProtocol: http}]}
  status: {loadBalancer: {}}
- {apiVersion: networking.istio.io/v1alpha3, kind: WorkloadEntry, metadata: {name: vm}, spec: {address: 192.0.2.1, ports: {http: 8080}}}
--- # the last
apiVersion: isthmus.dev/v1alpha1
kind: MeshPeer
metadata:
  name: retail
spec:
  trustDomain: &td retail.example
  knownAs: cards
  gatewayAddresses: ["gw.retail.example:15443"]
  gatewayIDs: [spiffe://retail.example/ns/isthmus-system/sa/gateway]
  bundle: {fingerprint: "0123456789012345678901234567890123456789012345678901234567890123"}
  expiresAt: 2030-01-31T12:00:00Z
  maxBundleAge: 12h
`

func TestDecode(t *testing.T) {
	f := istioyaml.Decode("x.yaml", []byte(several), schema.New().Validate, nil)
	if len(f.Findings) > 0 {
		t.Fatalf("findings: %v", f.Findings)
	}
	var keys []string
	for _, o := range f.Objects {
		keys = append(keys, fmt.Sprintf("%s @%d", o.Key, o.Origin.Line))
	}
	want := []string{
		"AuthorizationPolicy shop/who @3", "Service default/web @19", "WorkloadEntry default/vm @24",
		"MeshPeer retail @26",
	}
	if !slices.Equal(keys, want) {
		t.Fatalf("objects %q, want %q", keys, want)
	}
	ap := f.Objects[0].Value.(*security.AuthorizationPolicy)
	if ap.APIVersion != "security.istio.io/v1" || ap.Spec.Action.String() != "DENY" ||
		ap.Spec.Rules[0].From[0].Source.NotPrincipals[0] != "a.example/ns/shop/sa/*" {
		t.Errorf("policy decoded as %v", ap)
	}
	origin := f.Objects[0].Origin
	for field, line := range map[string]int{
		"spec.rules[0].when[0].key": 12, "spec.rules[0].from[0].source.principals": 10, "spec.nothing": 6,
		"metadata.labels[app.kubernetes.io/name]": 5, "": 3,
	} {
		if got := origin.LineOf(field); got != line {
			t.Errorf("line of %q = %d, want %d", field, got, line)
		}
	}
	svc := f.Objects[1].Value.(*corev1.Service)
	if svc.Namespace != "default" || svc.Spec.Ports[0].TargetPort.StrVal != "http" ||
		f.Objects[1].Origin.LineOf("spec.ports[0].port") != 22 {
		t.Errorf("service decoded as %v, port at line %d", svc, f.Objects[1].Origin.LineOf("spec.ports[0].port"))
	}
	if we := f.Objects[2].Value.(*networking.WorkloadEntry); we.Spec.Ports["http"] != 8080 {
		t.Errorf("workload entry decoded as %v", we)
	}
	peer := f.Objects[3].Value.(*v1alpha1.MeshPeer)
	if peer.Spec.MaxBundleAge.Hours() != 12 || peer.Spec.ExpiresAt.Year() != 2030 {
		t.Errorf("peer decoded as %+v", peer.Spec)
	}
}

func TestDecodeKeepsUnchangedDocuments(t *testing.T) {
	one := "apiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n"
	two := "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: two}\n"
	before := istioyaml.Decode("x.yaml", []byte(one+two), nil, nil)
	after := istioyaml.Decode("x.yaml", []byte("# moved down\n\n"+one+"# more\n"+two), nil, before)
	if after.Objects[1].Value != before.Objects[1].Value {
		t.Error("the second document gave a new object although it only moved")
	}
	key := snapshot.Key{Kind: "Namespace", Name: "two"}
	if o := after.Objects[1]; o.Key != key || o.Origin.Line != 8 || o.Origin.LineOf("metadata.name") != 10 {
		t.Errorf("%s at line %d, name at line %d, want 8 and 10", o.Key, o.Origin.Line,
			o.Origin.LineOf("metadata.name"))
	}
}

func TestDecodeBounds(t *testing.T) {
	for name, text := range map[string]string{
		"file": strings.Repeat("# xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n", 500_000),
		"document": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, annotations: {a: " + strings.Repeat("x",
			1<<20) + "}}\n",
	} {
		f := istioyaml.Decode("x.yaml", []byte(text), nil, nil)
		if len(f.Findings) != 1 || f.Findings[0].Code != finding.TooLarge || len(f.Objects) > 0 {
			t.Errorf("%s: %d objects, findings %v", name, len(f.Objects), f.Findings)
		}
	}
}

// degenerate are forms that a document can have and no object has.
var degenerate = []string{
	"", "null", "~", "---", "...", "--- null\n...\n", "\ufeff", "\x00", "%YAML 1.2", "{}", "[]", "{", "[", "\"", "-",
	"- - - -", "?", "? :", ": :", "&a", "*a", "&a *a",
	"&a [*a]", "&a {x: *a}", "{[a]: b}", "{{a: b}: c}", "{null: b}", "{1: 2, 1.5: x, true: y}", "<<: {a: b}",
	"!!binary x", "!<tag:x> y", "|", ">", "a: |\n b\n---\n|",
	"kind: List", "kind: List\napiVersion: v1\nitems:", "kind: List\napiVersion: v1\nitems: [null, ~, 1, [], {}, *a]",
	"kind: &k List\nitems: &i [*i]", "kind: ServiceList\napiVersion: v1\nitems: [{}]",
	"apiVersion: null\nkind: null\nmetadata: null\nspec: null", "apiVersion: v1\nkind: Service\nmetadata: null",
	"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: null",
	"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [null]}",
	"apiVersion: isthmus.dev/v1alpha1\nkind: Mesh\nmetadata: {name: x}\nspec: null",
	"apiVersion: isthmus.dev/v1alpha1\nkind: FederatedExport\nmetadata: {name: x}\nspec: {to: [null], service: null}",
	"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {rules: [null], selector: null}",
	"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {rules: [{from: [null], to: [{operation: null}], when: [null]}]}",
	"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\nspec: {mtls: null, portLevelMtls: {80: null}}",
	"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: x}\nspec: {hosts: [null], ports: [null], endpoints: [null], workloadSelector: null}",
	"{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"\\ud83d\\ude42\"}}",
	"{\"a\": \"\\ud83d\"}", "{\"a\": 1e999, \"b\": -0, \"c\": 99999999999999999999}", "{}{}", "[1,2",
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(several))
	for _, text := range degenerate {
		f.Add([]byte(text))
		f.Add([]byte(several + "---\n" + text))
	}
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	validate := schema.New().Validate
	f.Fuzz(func(t *testing.T, text []byte) {
		file := istioyaml.Decode("x.yaml", text, validate, nil)
		lines := 1 + strings.Count(string(text), "\n")
		for _, fd := range file.Findings {
			if fd.Line < 0 || fd.Line > lines || fd.Remedy == "" {
				t.Errorf("finding beside the %d lines, or without remedy: %+v", lines, fd)
			}
		}
		for _, o := range file.Objects {
			if o.Value == nil || o.Key.Name == "" || o.Origin.Line < 1 || o.Origin.Line > lines {
				t.Errorf("object is not whole: %+v", o)
			}
		}
		for _, b := range file.Broken {
			if b.Reason == "" || b.Origin.Line < 0 || b.Origin.Line > lines {
				t.Errorf("what is broken is not whole: %+v", b)
			}
		}
		picked := istioyaml.Decode("x.yaml", istioyaml.Pick(text, func(snapshot.Key) bool { return true }), validate,
			nil)
		if len(picked.Objects) < len(file.Objects) {
			t.Errorf("%d of %d objects are read again", len(picked.Objects), len(file.Objects))
		}
		again := istioyaml.Decode("x.yaml", text, validate, file)
		if len(again.Objects) != len(file.Objects) || len(again.Findings) != len(file.Findings) {
			t.Errorf("read again: %d objects and %d findings, first %d and %d", len(again.Objects), len(again.Findings),
				len(file.Objects), len(file.Findings))
		}
	})
}
