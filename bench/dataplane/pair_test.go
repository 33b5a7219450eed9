package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestPairConfigIsStrictAtBothEnds(t *testing.T) {
	values := pairValues{
		Protocols: protocols(), Dir: "/certs", Callee: "10.199.0.2", Host: "callee.default.svc.cluster.local",
		CallerID: "spiffe://bench.example/ns/default/sa/caller", CalleeID: "spiffe://bench.example/ns/default/sa/callee",
	}
	for end, wants := range map[string]map[string]int{
		"caller": {
			`matcher: {exact: "spiffe://bench.example/ns/default/sa/callee"}`:              3,
			"tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3": 3,
			"address: 127.0.0.1, port_value: 15101":                                        1,
			"address: 10.199.0.2, port_value: 15306":                                       1,
			`domains: ["callee.default.svc.cluster.local"]`:                                2,
		},
		"callee": {
			`principal_name: {exact: "spiffe://bench.example/ns/default/sa/caller"}`:       3,
			"require_client_certificate: true":                                             3,
			"tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3": 3,
			"address: 127.0.0.1, port_value: 8080":                                         1,
			"path_with_escaped_slashes_action: REJECT_REQUEST":                             2,
		},
	} {
		got, err := pairConfig(end, values)
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
		if len(parsed.StaticResources.Listeners) != 3 || len(parsed.StaticResources.Clusters) != 3 {
			t.Errorf("%s: %+v; want 3 listeners and 3 clusters", end, parsed)
		}
		for want, times := range wants {
			if n := strings.Count(string(got), want); n != times {
				t.Errorf("%s has %q %d times, want %d", end, want, n, times)
			}
		}
	}
}
