package envoy_test

import (
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// TestOneName: every chain that asks for a certificate refuses one with several names, before anything else looks at
// it.
func TestOneName(t *testing.T) {
	chains := 0
	for seed := range uint64(20) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for name := range mesh.Proxies {
			for _, r := range envoy.Build(view.For(mesh, name)).ByType[envoy.ListenerType] {
				config, err := r.Config()
				if err != nil {
					t.Fatal(err)
				}
				list, _ := config["filter_chains"].([]any)
				for _, c := range append(list, config["default_filter_chain"]) {
					chain, _ := c.(map[string]any)
					socket, _ := chain["transport_socket"].(map[string]any)
					if tls, _ := socket["typed_config"].(map[string]any); tls["require_client_certificate"] != true {
						continue
					}
					chains++
					var filters []string
					for _, f := range chain["filters"].([]any) {
						filters = append(filters, f.(map[string]any)["name"].(string))
					}
					got := strings.TrimPrefix(strings.Join(filters, " "), "connections ")
					if !strings.HasPrefix(got, "one_name ") && !strings.HasPrefix(got, "one_name_hears one_name ") {
						t.Errorf("seed %d, %s, chain %s: filters %s", seed, r.Name, chain["name"], got)
					}
				}
			}
		}
	}
	if chains < 100 {
		t.Errorf("only %d chains were looked at", chains)
	}
}
