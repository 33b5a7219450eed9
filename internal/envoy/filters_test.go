package envoy_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// Every chain of filters that any proxy of many meshes has, for HTTP and for bytes.
func TestOrderOfFilters(t *testing.T) {
	http, upgrades, network := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for seed := range uint64(60) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for proxy := range mesh.Proxies {
			everyListenerMessage(t, envoy.Build(view.For(mesh, proxy)), func(m protoreflect.Message) {
				switch m := m.Interface().(type) {
				case *hcmv3.HttpConnectionManager:
					http[names(m.HttpFilters)] = true
					for _, u := range m.UpgradeConfigs {
						upgrades[names(u.Filters)] = true
					}
				case *listenerv3.FilterChain:
					network[names(m.Filters)] = true
				}
			})
		}
	}
	for _, c := range []struct {
		what string
		got  map[string]bool
		want []string
	}{
		{"HTTP", http, []string{
			"anonymous health router",
			"boundary request_id deny allow names router",       // ingress
			"notes boundary request_id deny allow names router", // egress
			"notes fold deny allow router",                      // inbound
			"router",                                            // outbound, refusals, probes
		}},
		{"upgrades", upgrades, []string{
			"notes upgrade upgrades boundary request_id deny allow names router",
			"notes upgrade upgrades fold deny allow router",
			"router", // refusals
			"upgrade upgrades boundary request_id deny allow names router",
			"upgrade upgrades router",
		}},
		{"bytes", network, []string{
			"allow tcp", "close", "connections one_name http", "connections one_name_hears one_name tcp",
			"deny allow tcp", "http", "one_name http", "one_name_hears one_name allow tcp",
			"one_name_hears one_name deny allow tcp", "one_name_hears one_name tcp", "tcp",
		}},
	} {
		if got := slices.Sorted(maps.Keys(c.got)); !slices.Equal(got, c.want) {
			t.Errorf("%s: the filters are\n%s", c.what, strings.Join(got, "\n"))
		}
	}
}

func names[F interface{ GetName() string }](filters []F) string {
	var out []string
	for _, f := range filters {
		name, _, _ := strings.Cut(f.GetName(), "/")
		out = append(out, name)
	}
	return strings.Join(out, " ")
}
