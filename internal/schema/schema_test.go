package schema_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/schema"
)

var update = flag.Bool("update", false, "rewrite the field tables of docs/kinds")

func document(kindName string, spec map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": "isthmus.dev/v1alpha1", "kind": kindName,
		"metadata": map[string]any{"name": "a"}, "spec": spec,
	}
}

func TestValidate(t *testing.T) {
	peer := func(bundle map[string]any) map[string]any {
		return document("MeshPeer", map[string]any{
			"trustDomain": "a.example", "knownAs": "b", "gatewayAddresses": []any{"192.0.2.1:15443"},
			"gatewayIDs": []any{"spiffe://a.example/ns/isthmus-system/sa/gateway"}, "bundle": bundle,
		})
	}
	for name, c := range map[string]struct {
		document map[string]any
		want     []string
	}{
		"good": {document("Mesh", map[string]any{"trustDomain": "a.example"}), nil},
		"unknown field, with the nearest": {
			document("Mesh", map[string]any{"trustDomain": "a.example", "trustDomainAlias": []any{}}),
			[]string{"ISM-SCH16 spec.trustDomainAlias: there is no field \"trustDomainAlias\" here"},
		},
		"missing": {document("Mesh", map[string]any{}), []string{"ISM-SCH19 spec.trustDomain: the field is missing"}},
		"enum": {
			document("Mesh", map[string]any{"trustDomain": "a.example", "defaultAction": "ALLOW"}),
			[]string{`ISM-SCH18 spec.defaultAction: "ALLOW" is not a value of this field`},
		},
		"pattern": {
			document("Mesh", map[string]any{"trustDomain": "A"}),
			[]string{`ISM-SCH01 spec.trustDomain: "A" is refused: it should match '^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$'`},
		},
		"range": {
			document("FederatedExport", map[string]any{"service": "a", "port": int64(0)}),
			[]string{`ISM-SCH01 spec.port: "0" is refused: it should be greater than or equal to 1`},
		},
		"rule": {
			peer(map[string]any{}),
			[]string{"ISM-SCH01 spec.bundle: give inline (PEM roots) or fingerprint"},
		},
		"rule holds": {peer(map[string]any{"fingerprint": strings.Repeat("ab", 32)}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprint(c.document)
			var got []string
			for _, f := range schema.New().Validate(c.document["kind"].(string), c.document) {
				got = append(got, string(f.Code)+" "+f.Field+": "+f.Message)
				if f.Remedy == "" {
					t.Errorf("no remedy: %+v", f)
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if fmt.Sprint(c.document) != before {
				t.Error("the document was changed")
			}
		})
	}
}

// TestRemedies: the remedy says what to write, in the words of the field's description.
func TestRemedies(t *testing.T) {
	var got []string
	for _, d := range []map[string]any{
		document("MeshPeer", map[string]any{"trustDomain": "a.example"}), document("FederatedImport", map[string]any{}),
		document("Mesh", map[string]any{"trustDomain": "A"}),
	} {
		for _, f := range schema.New().Validate(d["kind"].(string), d) {
			got = append(got, f.Remedy)
		}
	}
	want := []string{
		"write bundle: where the peer's roots come from.",
		"write gatewayAddresses: host:port of the peer's federation gateways.",
		"write gatewayIDs: the exact SPIFFE IDs of the peer's gateways. All lie in TrustDomain.",
		"write knownAs: the name by which the peer knows this mesh; " +
			"it stands in the SNI of what this mesh asks of the peer.",
		"write from: the peers that serve it.",
		"write port: the port on which local callers find it.",
		"write trustDomain: the SPIFFE trust domain of every identity in the mesh " +
			"(SPIFFE ID §2.1). It cannot change later.",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestGenerated: the committed schemas are what the Go types say.
func TestGenerated(t *testing.T) {
	out := t.TempDir()
	gen := exec.Command("go", "tool", "controller-gen", "crd", "paths=.", "output:crd:dir="+out)
	gen.Dir = filepath.Join("..", "..", "api", "v1alpha1")
	if text, err := gen.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, text)
	}
	made, err := filepath.Glob(filepath.Join(out, "*.yaml"))
	if err != nil || len(made) == 0 {
		t.Fatalf("nothing was generated: %v", err)
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(gen.Dir, "crds", filepath.Base(path))); err != nil ||
			string(got) != string(want) {
			t.Errorf("crds/%s is not what the Go types say; run: go generate ./api/... (%v)", filepath.Base(path), err)
		}
	}
}

// TestFieldTables: the pages of the own kinds list each field of the schema.
func TestFieldTables(t *testing.T) {
	const begin, end = "<!-- fields: go test ./internal/schema -update -->\n", "<!-- end of fields -->"
	s := schema.New()
	for _, k := range kind.All {
		if k.Family != kind.Ours {
			continue
		}
		path := filepath.Join("..", "..", "docs", "kinds", strings.ToLower(k.Name)+".md")
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(page), begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s lacks the marks of the field table", path)
		}
		fields, err := s.Fields(k.Name)
		if err != nil {
			t.Fatal(err)
		}
		want := head + begin + table(fields) + end + tail
		if want == string(page) {
			continue
		}
		if !*update {
			t.Errorf("%s: the table of fields is stale; run: go test ./internal/schema -update", path)
		} else if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func table(fields []schema.Field) string {
	var b strings.Builder
	b.WriteString("\n| Field | Type | Must | Meaning |\n|---|---|---|---|\n")
	for _, f := range fields {
		must := ""
		if f.Required {
			must = "yes"
		}
		doc := f.Doc
		if f.Limits != "" {
			doc = strings.TrimSpace(doc + " *" + f.Limits + "*")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Path, f.Type, must,
			strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(doc))
	}
	b.WriteString("\n")
	return b.String()
}
