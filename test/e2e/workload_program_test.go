//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
)

// TestAgentsOfAnotherProgram: a mesh whose agents have other built-in parts than the control plane, as while one of
// them is upgraded first, refuses and answers as any other does.
func TestAgentsOfAnotherProgram(t *testing.T) {
	s := openShop(t, shopMesh, map[string][]member{"front": callers, "back": servers}, func(s *shop) {
		s.agents = anotherProgram(t)
	})
	sent, err := admin[adminapi.ProxyConfigRequest, adminapi.ProxyConfigResponse](t.Context(), s, "ProxyConfig",
		&adminapi.ProxyConfigRequest{Name: "front"})
	need(t, err)
	if !slices.ContainsFunc(sent.Resources, func(r adminapi.ProxyResource) bool {
		return strings.HasPrefix(r.Name, "refused-outbound@")
	}) {
		t.Error("the proxy was not sent what its agent lacks: this test proves nothing")
	}
	t.Run("raw requests", s.rawRequests)
	t.Run("strict", s.strict)
	t.Run("outbound", s.outbound)
	t.Run("refusals", s.refusals)
}

// anotherProgram builds isthmus with other built-in parts: they are of another version, though they mean the same.
func anotherProgram(t *testing.T) string {
	t.Helper()
	const name = "internal/envoy/builtin.go"
	root, err := filepath.Abs(filepath.Join("..", ".."))
	need(t, err)
	text, err := os.ReadFile(filepath.Join(root, name))
	need(t, err)
	changed := strings.Replace(string(text), `nobody = "nobody"`, `nobody = "no-one"`, 1)
	if changed == string(text) {
		t.Fatalf("%s does not say any more what this test changes", name)
	}
	dir := t.TempDir()
	need(t, os.WriteFile(filepath.Join(dir, "builtin.go"), []byte(changed), 0o600))
	overlay, err := json.Marshal(map[string]any{
		"Replace": map[string]string{filepath.Join(root, name): filepath.Join(dir, "builtin.go")},
	})
	need(t, err)
	need(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o",
		filepath.Join(dir, "isthmus"),
		"./cmd/isthmus")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build another program: %v\n%s", err, out)
	}
	return filepath.Join(dir, "isthmus")
}
