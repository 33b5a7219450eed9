//go:build e2e

package hostile

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// scriptConfig is an Envoy that runs a script of Lua as it starts.
func scriptConfig(script string) ([]byte, error) {
	type object = map[string]any
	extension := func(name, kind string, more object) object {
		more["@type"] = "type.googleapis.com/envoy.extensions.filters." + kind
		return object{"name": name, "typed_config": more}
	}
	manager := extension("http", "network.http_connection_manager.v3.HttpConnectionManager", object{
		"stat_prefix": "x", "route_config": object{},
		"http_filters": []any{
			extension("lua", "http.lua.v3.Lua", object{"default_source_code": object{"inline_string": script}}),
			extension("router", "http.router.v3.Router", object{}),
		},
	})
	return json.Marshal(object{"static_resources": object{"listeners": []any{object{
		"name": "x", "address": object{"socket_address": object{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{object{"filters": []any{manager}}},
	}}}})
}

// TestScriptsNeedNoExecutableMemory: the gateway's unit forbids memory that becomes executable, which a compiler of
// scripts wants as soon as one has run a few dozen times.
func TestScriptsNeedNoExecutableMemory(t *testing.T) {
	binary, err := envoyproc.Locate("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	if config := os.Getenv("CONFINED_ENVOY"); config != "" {
		if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		t.Fatal(unix.Exec(binary, []string{binary, "--mode", "validate", "-c", config, "-l", "error"}, os.Environ()))
	}
	if _, err := unix.PrctlRetInt(unix.PR_GET_MDWE, 0, 0, 0, 0); err != nil {
		t.Skip("before Linux 6.3 nobody can be confined so: ", err)
	}
	script := `local host, suffix, names = "a.b.svc.mesh", ".svc.mesh", {["a.b"] = true}` + "\n"
	for _, name := range []string{"innernames.lua", "inneranswers.lua"} {
		text, err := os.ReadFile(filepath.Join("..", "envoy", name))
		if err != nil {
			t.Fatal(err)
		}
		script += string(text)
	}
	script += `
local says = {"http://a.b/x", "<http://a.b/2>; rel=next", "5; url=http://a.b/", "a=b; Domain=a.b", "http://a.b"}
local n = 0
for i = 1, 10000 do
  for _, rewrite in pairs(rewritten) do
    n = n + #(rewrite(says[i % #says + 1]) or "")
  end
end
error("rewritten " .. (n > 0 and "many" or "none"))
`
	config, err := scriptConfig(script)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "CONFINED_ENVOY="+path)
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "rewritten many") {
		t.Errorf("Envoy, confined, says: %s", out)
	}
}
