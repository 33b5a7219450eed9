package envoyproc

import (
	"encoding/json"
	"fmt"

	"isthmus.dev/isthmus/internal/wellknown"
)

// Bootstrap is what Envoy must know at its start: its identity, the agent's socket, its limits, and what is the same
// for every Envoy.
type Bootstrap struct {
	Node           string
	AgentSocket    string
	AdminSocket    string
	MaxConnections uint64 // downstream, over all listeners
	MaxHeapBytes   uint64
}

type object = map[string]any

// JSON returns the bootstrap file.
func (b Bootstrap) JSON() ([]byte, error) {
	clusters, listeners, err := builtinParts()
	if err != nil {
		return nil, fmt.Errorf("encode Envoy bootstrap: %w", err)
	}
	text, err := json.MarshalIndent(object{
		"node":              object{"id": b.Node, "cluster": b.Node},
		"admin":             object{"address": object{"pipe": object{"path": b.AdminSocket, "mode": 0o600}}},
		"dynamic_resources": dynamicResources(),
		"static_resources": object{
			"clusters": append([]any{agentCluster(b.AgentSocket)}, clusters...), "listeners": listeners,
		},
		"layered_runtime":         layeredRuntime(),
		"overload_manager":        overloadManager(b),
		"bootstrap_extensions":    []any{internalListeners()},
		"stats_config":            statsConfig(),
		"stats_flush_on_admin":    true,
		"enable_dispatcher_stats": false,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode Envoy bootstrap: %w", err)
	}
	return append(text, '\n'), nil
}

func dynamicResources() object {
	ads := object{"ads": object{}, "resource_api_version": "V3"}
	return object{
		"ads_config": object{
			"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
			"grpc_services": []any{object{"envoy_grpc": object{
				"cluster_name": wellknown.ADSCluster,
				"retry_policy": object{"retry_back_off": object{"base_interval": "0.1s", "max_interval": "1s"}},
			}}},
		},
		"lds_config": ads,
		"cds_config": ads,
	}
}

// agentCluster returns the agent on its Unix socket: ADS, SDS and access logs, HTTP/2, one stream per secret.
func agentCluster(socket string) object {
	const http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	return object{
		"name": wellknown.ADSCluster, "type": "STATIC", "connect_timeout": "1s",
		"load_assignment": object{
			"cluster_name": wellknown.ADSCluster,
			"endpoints": []any{object{"lb_endpoints": []any{object{
				"endpoint": object{"address": object{"pipe": object{"path": socket}}},
			}}}},
		},
		"circuit_breakers": object{"thresholds": []any{object{
			"max_connections": 1000, "max_pending_requests": 100000, "max_requests": 100000,
		}}},
		"typed_extension_protocol_options": object{http: object{
			"@type":                "type.googleapis.com/" + http,
			"explicit_http_config": object{"http2_protocol_options": object{"max_concurrent_streams": 2147483647}},
		}},
	}
}

// layeredRuntime has a layer that the agent serves, with the shares of Envoy's connections (package limits), and a
// fixed one above it: nothing else changes Envoy's flags while it runs, not even the admin socket. Only the control
// plane writes regular expressions, and Envoy's usual limit of 100 instructions would refuse those of longer names.
func layeredRuntime() object {
	return object{"layers": []any{
		object{"name": wellknown.LimitsLayer, "rtds_layer": object{"name": wellknown.LimitsLayer, "rtds_config": object{
			"resource_api_version": "V3", "api_config_source": object{
				"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": wellknown.ADSCluster}}},
			},
		}}},
		object{"name": "fixed", "static_layer": object{
			"re2.max_program_size.error_level": 1 << 16, "re2.max_program_size.warn_level": 1 << 16,
		}},
	}}
}

// internalListeners lets Envoy pass calls between its own listeners, which it refuses otherwise. The buffer between the
// two ends is bounded like a socket's, in KiB.
func internalListeners() object {
	const name = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
	return object{"name": "internal_listeners", "typed_config": object{
		"@type": "type.googleapis.com/" + name, "buffer_size_kb": 32,
	}}
}

// overloadManager sheds load as memory nears its bound. First the streams that hold 64 KiB or more are reset, a little
// later also those that hold 32 KiB. Only after that does Envoy refuse requests and connections, whoever makes them.
//
// Envoy resets up to 50 streams per worker whenever the pressure changes. At the end of its scale the pressure stays 1
// however much more memory is used, and nothing more is reset, so this scale ends far beyond the bound. Envoy divides
// the scale by eight and at each step resets one more class of stream sizes, each twice the one below it. The smallest
// possible lowest class is 512 bytes, which makes the highest begin at 64 KiB.
func overloadManager(b Bootstrap) object {
	const (
		heap        = "envoy.resource_monitors.fixed_heap"
		beyond      = "isthmus.heap_and_beyond"
		connections = "envoy.resource_monitors.global_downstream_max_connections"
		types       = "type.googleapis.com/envoy.extensions.resource_monitors."

		scale  = 2.25 // of MaxHeapBytes, where the pressure of "beyond" is 1
		resets = 0.85 // of MaxHeapBytes; the second class follows at 1.025, the third at 1.2
	)
	above := func(share float64) []any { // of MaxHeapBytes
		return []any{object{"name": beyond, "threshold": object{"value": share / scale}}}
	}
	monitor := func(name string, bytes float64) object {
		return object{"name": name, "typed_config": object{
			"@type": types + "fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": uint64(bytes),
		}}
	}
	return object{
		"refresh_interval":      "0.1s",
		"buffer_factory_config": object{"minimum_account_to_track_power_of_two": 10},
		"resource_monitors": []any{
			monitor(heap, float64(b.MaxHeapBytes)), // for the statistics
			monitor(beyond, scale*float64(b.MaxHeapBytes)),
			object{"name": connections, "typed_config": object{
				"@type":                             types + "downstream_connections.v3.DownstreamConnectionsConfig",
				"max_active_downstream_connections": b.MaxConnections,
			}},
		},
		"actions": []any{
			object{"name": "envoy.overload_actions.shrink_heap", "triggers": above(0.8)},
			object{"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": []any{
				object{"name": beyond, "scaled": object{
					"scaling_threshold":    resets / scale,
					"saturation_threshold": 1,
				}},
			}},
			object{"name": "envoy.overload_actions.disable_http_keepalive", "triggers": above(1.03)},
			object{"name": "envoy.overload_actions.stop_accepting_requests", "triggers": above(1.05)},
			object{"name": "envoy.overload_actions.stop_accepting_connections", "triggers": above(1.1)},
		},
	}
}
