package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestPairConfigIsStrictAtBothEnds(t *testing.T) {
	values := pairValues{
		Protocols: protocols(), Dir: "/certs", Callee: "10.199.0.2", Host: "callee.default.svc.cluster.local",
		CallerID: "spiffe://bench.example/ns/default/sa/caller",
		CalleeID: "spiffe://bench.example/ns/default/sa/callee",
	}
	values.HTTPAtCaller = true
	for end, wants := range map[string]map[string]int{
		"caller": {
			`matcher: {exact: "spiffe://bench.example/ns/default/sa/callee"}`:              4,
			"tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3": 4,
			"address: 127.0.0.1, port_value: 15101":                                        1,
			"address: 10.199.0.2, port_value: 15306":                                       1,
			`domains: ["callee.default.svc.cluster.local"]`:                                3,
		},
		"callee": {
			`principal_name: {exact: "spiffe://bench.example/ns/default/sa/caller"}`:       4,
			"require_client_certificate: true":                                             4,
			"tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3": 4,
			"address: 127.0.0.1, port_value: 8080":                                         1,
			"path_with_escaped_slashes_action: REJECT_REQUEST":                             3,
		},
	} {
		values.AtCaller, values.AtCallee = end == "caller", end == "callee"
		got, err := pairConfig(values)
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct {
			StaticResources struct {
				Listeners []struct{ Name string }
				Clusters  []struct{ Name string }
			} `json:"static_resources"`
		}
		if err := yaml.Unmarshal(got, &parsed); err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		if len(parsed.StaticResources.Listeners) != 4 || len(parsed.StaticResources.Clusters) != 4 {
			t.Errorf("%s: %+v; want 4 listeners and 4 clusters", end, parsed)
		}
		for want, times := range wants {
			if n := strings.Count(string(got), want); n != times {
				t.Errorf("%s has %q %d times, want %d", end, want, n, times)
			}
		}
	}
}

func TestPairInOneEnvoyStaysInItsNamespaces(t *testing.T) {
	got, err := pairConfig(pairValues{
		AtCaller: true, AtCallee: true, Offset: 20, Protocols: protocols(), Callee: "10.199.0.2",
		CallerNetns: "/run/netns/caller", CalleeNetns: "/run/netns/callee",
	})
	if err != nil {
		t.Fatal(err)
	}
	for want, times := range map[string]int{
		"port_value: 15121, network_namespace_filepath: /run/netns/caller": 1,
		"port_value: 15126, network_namespace_filepath: /run/netns/callee": 1,
		"port_value: 0, network_namespace_filepath: /run/netns/caller":     4,
		"port_value: 0, network_namespace_filepath: /run/netns/callee":     4,
		"http_connection_manager.v3":                                       3, // at the callee only
	} {
		if n := strings.Count(string(got), want); n != times {
			t.Errorf("%q is there %d times, want %d", want, n, times)
		}
	}
}

func TestHandOverStaysInside(t *testing.T) {
	for way, wants := range map[string]map[string]int{
		"tls": {
			"envoy_internal_address": 4, "internal_listener: {}": 4, "require_client_certificate: true": 4,
			"match_typed_subject_alt_names": 4, "filter_state": 0,
		},
		"plain": {
			"envoy_internal_address": 4, "internal_listener: {}": 4, "require_client_certificate: true": 0,
			"set_filter_state.v3": 4, "filter_state: {key: caller": 4,
		},
	} {
		got, err := pairConfig(pairValues{
			AtCaller: true, AtCallee: true, HandOver: way, Protocols: protocols(), CallerID: callerID,
		})
		if err != nil {
			t.Fatal(err)
		}
		for want, times := range wants {
			if n := strings.Count(string(got), want); n != times {
				t.Errorf("%s: %q is there %d times, want %d", way, want, n, times)
			}
		}
	}
}

func TestGatewaysByHandAdmitOneAndTrustOneMeshOnEachSide(t *testing.T) {
	values := pairValues{
		Protocols: protocols(), Dir: "/own", Offset: 90, CallerID: "spiffe://bench.example/ns/default/sa/caller",
		Gateway: &gatewayValues{
			ClientID: "spiffe://bench.example/ns/default/sa/caller", ClientsRoot: "/own/root.pem", Asserts: true,
			Next: "198.51.100.12", NextID: "spiffe://peer.example/ns/default/sa/gateway", NextRoot: "/peer/root.pem",
			Host: "callee.default.svc.cluster.local", HostBehind: "callee.peer.example", Log: "/own/gateway.log",
		},
	}
	for asserts, wants := range map[bool]map[string]int{
		true: {
			"require_client_certificate: true":                                                       4,
			"trusted_ca: {filename: /own/root.pem}":                                                  4,
			"trusted_ca: {filename: /peer/root.pem}":                                                 4,
			`matcher: {exact: "spiffe://bench.example/ns/default/sa/caller"}`:                        4,
			`matcher: {exact: "spiffe://peer.example/ns/default/sa/gateway"}`:                        4,
			`authenticated: {principal_name: {exact: "spiffe://bench.example/ns/default/sa/caller"}`: 4,
			"value: \"%DOWNSTREAM_PEER_URI_SAN%\"":                                                   3,
			`path: "/own/gateway.log"`:                                                               4,
		},
		false: {
			`header: {name: bench-caller, string_match: {exact: "spiffe://bench.example/ns/default/sa/caller"}}`: 3,
			"value: \"%DOWNSTREAM_PEER_URI_SAN%\"": 0,
		},
	} {
		values.Gateway.Asserts = asserts
		got, err := pairConfig(values)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(got, new(map[string]any)); err != nil {
			t.Fatal(err)
		}
		for want, times := range wants {
			if n := strings.Count(string(got), want); n != times {
				t.Errorf("asserts %v: %q is there %d times, want %d", asserts, want, n, times)
			}
		}
	}
}
