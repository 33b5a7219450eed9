package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/cli"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/snapshot"
)

const mesh = `apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: small}
spec: {trustDomain: small.example}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

const nodeSettings = `name: n1
control: {addresses: ["10.0.0.1:15012"]}
workloads:
- name: echo
  namespace: default
  serviceAccount: echo
  labels: {app: echo}
  netns: /run/netns/echo
  addresses: [10.0.0.11]
  ports: [{name: http, number: 8080}]
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func isthmus(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Main(t.Context(), args, cli.World{In: strings.NewReader(""), Out: &o, Err: &e, Now: time.Now}, verbs())
	return code, o.String(), e.String()
}

func TestRenderRunsTheSpine(t *testing.T) {
	dir, node := filepath.Dir(write(t, "mesh.yaml", mesh)), write(t, "node.yaml", nodeSettings)
	code, out, errs := isthmus(t, "render", "-f", dir, "--node-config", node, "--proxy", "n1")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"CDS   default/echo:8080 ", "LDS   inbound/default/echo ",
		"LDS   outbound/default/echo ", "Service default/echo (" + dir + "/mesh.yaml:",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("render lacks %q:\n%s", want, out)
		}
	}
	if code, _, errs := isthmus(t, "render", "-f", dir, "--node-config", node, "--proxy", "n2"); code != 65 ||
		!strings.Contains(errs, `no proxy "n2": the agents' settings given name n1`) {
		t.Errorf("unknown proxy: exit code %d: %s", code, errs)
	}
	if code, out, errs := isthmus(t, "validate", "-f", dir); code != 0 ||
		!strings.HasPrefix(out, "Nothing to fix.\n") {
		t.Errorf("files alone: %d %s %s", code, out, errs)
	}
	if code, out, errs := isthmus(t, "validate", "-f", t.TempDir()); code != 79 || !strings.Contains(out, "ISM0001") {
		t.Errorf("no Mesh, files alone: %d %s%s", code, out, errs)
	}
	if code, _, errs := isthmus(t, "render", "-f", t.TempDir(), "--node-config", node, "--proxy", "n1"); code != 79 ||
		!strings.Contains(errs, "ISM0001") {
		t.Errorf("folder without a Mesh: exit code %d: %s", code, errs)
	}
	if code, _, errs := isthmus(t, "render", "-f", dir+"/none", "--node-config", node, "--proxy", "n1"); code != 65 ||
		!strings.Contains(errs, dir+"/none") {
		t.Errorf("no folder: exit code %d: %s", code, errs)
	}
}

func TestAgentRefusesTheOtherRole(t *testing.T) {
	node := write(t, "node.yaml", nodeSettings)
	code, _, errs := isthmus(t, "gateway", "--config", node)
	if code != 65 || !strings.Contains(errs, "holds the settings of a node, not of a gateway") ||
		!strings.Contains(errs, "Next: isthmus node --config "+node) {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if code, _, errs := isthmus(t, "node", "--config", node+"x"); code != 65 ||
		!strings.Contains(errs, "no such file") {
		t.Errorf("missing file: exit code %d: %s", code, errs)
	}
}

// TestDocumentedAgentSettingsLoad loads the examples of docs/cli.md: the first is the control plane's, then the
// agents'.
func TestDocumentedAgentSettingsLoad(t *testing.T) {
	docs, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(docs), "```yaml\n")[2:]
	if len(examples) != 2 {
		t.Fatalf("docs/cli.md has %d examples of agents' settings, want 2", len(examples))
	}
	for i, role := range []snapshot.Role{snapshot.RoleNode, snapshot.RoleGateway} {
		text, _, _ := strings.Cut(examples[i], "```")
		cfg, err := node.LoadConfig(write(t, "agent.yaml", text))
		if err != nil {
			t.Errorf("the %s's settings: %v", role, err)
		}
		if cfg.Role() != role {
			t.Errorf("the settings are a %s's, want a %s's", cfg.Role(), role)
		}
	}
}
