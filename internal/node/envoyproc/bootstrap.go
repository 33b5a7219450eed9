package envoyproc

import (
	"encoding/json"
	"fmt"

	"isthmus.dev/isthmus/internal/agentapi"
)

// Bootstrap is what Envoy must know before it can ask: itself, the agent's socket, and its limits.
type Bootstrap struct {
	Node           string
	AgentSocket    string
	AdminSocket    string
	MaxConnections uint64 // downstream, over all listeners
	MaxHeapBytes   uint64
}

type object = map[string]any

// JSON is the bootstrap file.
func (b Bootstrap) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(object{
		"node":                    object{"id": b.Node, "cluster": b.Node},
		"admin":                   object{"address": object{"pipe": object{"path": b.AdminSocket, "mode": 0o600}}},
		"dynamic_resources":       dynamicResources(),
		"static_resources":        object{"clusters": []any{agentCluster(b.AgentSocket)}},
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
				"cluster_name": agentapi.ADSCluster,
				"retry_policy": object{"retry_back_off": object{"base_interval": "0.1s", "max_interval": "1s"}},
			}}},
		},
		"lds_config": ads,
		"cds_config": ads,
	}
}

// agentCluster is the agent on its Unix socket: ADS, SDS and access logs, HTTP/2, one stream per secret.
func agentCluster(socket string) object {
	const http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	return object{
		"name": agentapi.ADSCluster, "type": "STATIC", "connect_timeout": "1s",
		"load_assignment": object{
			"cluster_name": agentapi.ADSCluster,
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
// fixed one above it: nothing else changes Envoy's flags while it runs, nor does the admin socket. Regular expressions
// come from the control plane alone; Envoy's usual bound of 100 instructions refuses those of longer names.
func layeredRuntime() object {
	return object{"layers": []any{
		object{"name": agentapi.LimitsLayer, "rtds_layer": object{"name": agentapi.LimitsLayer, "rtds_config": object{
			"resource_api_version": "V3", "api_config_source": object{
				"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": agentapi.ADSCluster}}},
			},
		}}},
		object{"name": "fixed", "static_layer": object{
			"re2.max_program_size.error_level": 1 << 16, "re2.max_program_size.warn_level": 1 << 16,
		}},
	}}
}

// internalListeners lets Envoy hand calls over inside itself; without this it refuses such listeners. What lies between
// the two ends of a connection is bounded like what a socket holds, in KiB.
func internalListeners() object {
	const name = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
	return object{"name": "internal_listeners", "typed_config": object{
		"@type": "type.googleapis.com/" + name, "buffer_size_kb": 32,
	}}
}

func overloadManager(b Bootstrap) object {
	const (
		heap        = "envoy.resource_monitors.fixed_heap"
		connections = "envoy.resource_monitors.global_downstream_max_connections"
		types       = "type.googleapis.com/envoy.extensions.resource_monitors."
	)
	above := func(value float64) []any {
		return []any{object{"name": heap, "threshold": object{"value": value}}}
	}
	return object{
		"refresh_interval": "0.25s",
		// Of the streams that hold 32 KiB or more, those that hold most are reset first, before anybody else has to do without.
		// What one may hold is little, but not what thousands of them do.
		"buffer_factory_config": object{"minimum_account_to_track_power_of_two": 15},
		"resource_monitors": []any{
			object{"name": heap, "typed_config": object{
				"@type": types + "fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": b.MaxHeapBytes,
			}},
			object{"name": connections, "typed_config": object{
				"@type":                             types + "downstream_connections.v3.DownstreamConnectionsConfig",
				"max_active_downstream_connections": b.MaxConnections,
			}},
		},
		"actions": []any{
			object{"name": "envoy.overload_actions.shrink_heap", "triggers": above(0.9)},
			object{"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": []any{
				object{"name": heap, "scaled": object{"scaling_threshold": 0.85, "saturation_threshold": 0.95}},
			}},
			object{"name": "envoy.overload_actions.disable_http_keepalive", "triggers": above(0.95)},
			object{"name": "envoy.overload_actions.stop_accepting_requests", "triggers": above(0.97)},
			object{"name": "envoy.overload_actions.stop_accepting_connections", "triggers": above(0.98)},
		},
	}
}
