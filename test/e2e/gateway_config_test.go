//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/yamltest"
)

// falsePeers are meshes whose gateway is not what its MeshPeer says; each has an import of its own name.
func falsePeers() []string {
	return []string{"imposter", "borrower", "expired", "future", "unknown", "old", "plain"}
}

// writeConfig writes what the administrators of "home" would.
func (g *gateway) writeConfig(t *testing.T) {
	t.Helper()
	g.write(t, "config/mesh.yaml", `
apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: home}
spec:
  trustDomain: home.example
  federation: {gatewayAddresses: ["192.0.2.1:15443"]}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
`)
	var services strings.Builder
	service := func(name, port string, number, target int) {
		services.WriteString(yamltest.Service("default", name, name,
			fmt.Sprintf("name: %s, port: %d, targetPort: %d", port, number, target)))
	}
	service("api", "http-web", 80, 8080)
	service("bank", "tcp-raw", 7000, 7001)
	service("gone", "http-web", 80, 8080)
	service("mask", "http-web", 80, 8080)
	g.write(t, "config/services.yaml", services.String())

	var exports strings.Builder
	export := func(name, service string, port int, to ...string) {
		exports.WriteString(yamltest.Object("isthmus.dev/v1alpha1", "FederatedExport", "default", name, fmt.Sprintf(
			"service: %s\nport: %d\nalias: %s\nto:\n- %s", service, port, name, strings.Join(to, "\n- "))))
	}
	web := func(peer, methods, paths string) string {
		return fmt.Sprintf("{peer: %s, rules: [{callers: [%q], methods: [%s], paths: [%s]}]}", peer,
			"spiffe://"+peer+".example/ns/default/sa/web", methods, paths)
	}
	all := func(peer string) string { return fmt.Sprintf("{peer: %s, rules: [{}]}", peer) }
	none := func(peer string) string { return fmt.Sprintf("{peer: %s}", peer) }
	export("api", "api", 80, web("north", "GET, POST", `/public, "/v1/*"`), web("south", "GET", "/south"), all("east"),
		all("west"), all("stale"))
	export("strict", "api", 80, web("north", "GET, POST", "/public"))
	export("open", "api", 80, all("north"))
	export("gone", "gone", 80, all("north"))
	export("mask", "mask", 80, all("north"))
	export("raw", "bank", 7000, none("north"), none("east"), none("west"), none("stale"))
	g.write(t, "config/exports.yaml", exports.String())
	g.write(t, "config/imports.yaml", imports())
	for _, p := range g.peers {
		g.write(t, "config/peer-"+p.name+".yaml", p.object)
	}
}

// imports gives what peers offer local names: other names and ports than the peers'.
func imports() string {
	var b strings.Builder
	add := func(name string, port int, protocol string, from ...string) {
		b.WriteString(yamltest.Object("isthmus.dev/v1alpha1", "FederatedImport", "default", name, fmt.Sprintf(
			"port: %d\nprotocol: %s\ncallers: [web]\nfrom:\n- %s", port, protocol, strings.Join(from, "\n- "))))
	}
	add("billing", 9080, "HTTP", "{peer: north, name: payments}")
	add("ledger", 9090, "GRPC", "{peer: north, name: books}")
	add("split", 80, "HTTP", "{peer: north, weight: 3}", "{peer: south, weight: 1}")
	add("standby", 80, "HTTP", "{peer: north}", "{peer: south, priority: 1}")
	add("feed", 7100, "TCP", "{peer: south, name: raw}")
	add("mixed-raw", 7100, "TCP", "{peer: north, weight: 1}", "{peer: east, weight: 1000}")
	add("mixed", 80, "HTTP", "{peer: north, weight: 1}", "{peer: east, weight: 1000}")
	for _, p := range append([]string{"north", "east", "west", "stale"}, falsePeers()...) {
		add(p, 80, "HTTP", fmt.Sprintf("{peer: %s}", p))
		add(p+"-raw", 7100, "TCP", fmt.Sprintf("{peer: %s}", p))
	}
	return b.String()
}
