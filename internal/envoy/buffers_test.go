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
			for _, typ := range []string{envoy.ClusterType, envoy.ListenerType} {
				for _, r := range res.ByType[typ] {
					config, err := r.Config()
					if err != nil {
						t.Fatal(err)
					}
					if limit := config["per_connection_buffer_limit_bytes"]; limit != float64(32768) && config["cluster_type"] == nil {
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
			http2, _ := c["http2_protocol_options"].(map[string]any)
			if http2["initial_stream_window_size"] != float64(262144) ||
				http2["initial_connection_window_size"] != float64(1048576) {
				t.Errorf("%s: streams may have kept %v", name, http2)
			}
		}
		for _, v := range c {
			n += boundedStreams(t, name, v)
		}
	}
	return n
}
