package envoy_test

import (
	"testing"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// No connection and no stream, of whatever proxy, has Envoy keep as much as Envoy would by itself.
func TestEveryBufferIsBounded(t *testing.T) {
	var seen, streams int
	for seed := range uint64(20) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for proxy := range mesh.Proxies {
			res := envoy.Build(view.For(mesh, proxy))
			for _, typ := range []string{envoy.ClusterType, envoy.ListenerType, envoy.ExtensionType} {
				for _, r := range res.ByType[typ] {
					config, err := r.Config()
					if err != nil {
						t.Fatal(err)
					}
					if limit := config["per_connection_buffer_limit_bytes"]; limit != float64(32768) &&
						config["cluster_type"] == nil &&
						typ != envoy.ExtensionType {
						t.Errorf("%s %s: a connection may have %v bytes kept", typ, r.Name, limit)
					}
					seen++
					streams += boundedStreams(t, r.Name, config)
				}
			}
		}
	}
	if seen < 100 || streams < 100 {
		t.Errorf("only %d resources and %d places of HTTP were seen", seen, streams)
	}
}

// boundedStreams complains of each HTTP connection manager without bounds, and counts them all.
func boundedStreams(t *testing.T, name string, config any) (n int) {
	switch c := config.(type) {
	case []any:
		for _, v := range c {
			n += boundedStreams(t, name, v)
		}
	case map[string]any:
		if c["http_filters"] != nil {
			n++
			if c["http2_protocol_options"] == nil {
				t.Errorf("%s: streams have no bounds", name)
			}
		}
		if http2, ok := c["http2_protocol_options"].(map[string]any); ok {
			options(t, name, http2)
		}
		for _, v := range c {
			n += boundedStreams(t, name, v)
		}
	}
	return n
}

// options complains where a stream may have too much kept, or where those that nobody reads could hold up others: by
// filling the window of a connection that they share.
func options(t *testing.T, name string, http2 map[string]any) {
	stream, _ := http2["initial_stream_window_size"].(float64)
	connection, _ := http2["initial_connection_window_size"].(float64)
	switch most, pooled := http2["max_concurrent_streams"].(float64); {
	case stream != 131072 || !pooled && connection != 1048576:
		t.Errorf("%s: streams may have kept %v", name, http2)
	case pooled && (most != 16 || connection != 2097152):
		t.Errorf("%s: streams have too little room in the connection of others, or too much: %v", name, http2)
	}
}
