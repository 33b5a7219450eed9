package envoyproc

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestBootstrap reads single values of the bootstrap by their path.
func TestBootstrap(t *testing.T) {
	text, err := Bootstrap{
		Node: "rack1", AgentSocket: "/run/a/agent.sock", AdminSocket: "/run/a/admin.sock",
		MaxConnections: 12000, MaxHeapBytes: 1 << 30,
	}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var all any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"node.id":                               "rack1",
		"admin.address.pipe.path":               "/run/a/admin.sock",
		"admin.address.pipe.mode":               float64(0o600), // nobody but this user
		"dynamic_resources.ads_config.api_type": "DELTA_GRPC",
		"static_resources.clusters.0.load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.pipe.path": "/run/a/agent.sock",
		"overload_manager.resource_monitors.0.typed_config.max_heap_size_bytes":                             float64(1 << 30),
		"overload_manager.resource_monitors.2.typed_config.max_active_downstream_connections":               float64(12000),
	} {
		if got := at(all, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	// Streams are reset before requests are refused, and requests before connections.
	var last float64
	for i, action := range []string{
		"shrink_heap", "", "disable_http_keepalive", "stop_accepting_requests", "stop_accepting_connections",
	} {
		if action == "" {
			continue
		}
		a := at(all, "overload_manager.actions").([]any)[i]
		value := at(a, "triggers.0.threshold.value").(float64)
		if at(a, "name") != "envoy.overload_actions."+action || value <= last {
			t.Errorf("action %d is %v at %v, after one at %v", i, at(a, "name"), value, last)
		}
		last = value
	}
}

// at follows a path of keys and indexes through decoded JSON; nil where it leads nowhere.
func at(v any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			if len(key) != 1 || int(key[0]-'0') >= len(x) {
				return nil
			}
			v = x[key[0]-'0']
		default:
			return nil
		}
	}
	return v
}
