package main

import (
	"context"
	"fmt"
	"strings"

	"isthmus.dev/isthmus/bench/meshlab"
)

// Names of the two meshes, and of the workloads, which are their service accounts too.
const (
	alpha, beta = "alpha", "beta"

	oneCaller, oneCallee = "one-caller", "one-callee" // on one node
	twoCaller, twoCallee = "two-caller", "two-callee" // on two nodes
	farCallee            = "far-callee"               // in the other mesh; two-caller calls it
	freeCaller           = "free-caller"              // in no mesh
	freeCallee           = "free-callee"
	heldCaller           = "held-caller" // in no mesh, but captured by hand
	heldCallee           = "held-callee"
	heldFarCallee        = "held-far-callee" // of these, on the bridge of the other mesh

	alphaOuter, betaOuter = "198.51.100.11", "198.51.100.12" // of their gateways, to each other
)

// meshes is what is built: all nodes of a mesh on one bridge, so that every shape has the same way through the kernel.
func meshes(ps []protocol) []meshlab.Mesh {
	var ports []meshlab.Port
	for _, p := range ps {
		ports = append(ports, meshlab.Port{Name: p.Prefix + "-" + p.Name, Number: p.App})
	}
	callee := func(name string) meshlab.Workload { return meshlab.Workload{Name: name, Ports: ports} }
	caller := func(name string) meshlab.Workload {
		return meshlab.Workload{Name: name, Ports: []meshlab.Port{{Name: "tcp-none", Number: 1}}}
	}
	return []meshlab.Mesh{
		{
			Name: alpha, Gateway: true,
			Nodes: []meshlab.Node{
				{Name: "one", Workloads: []meshlab.Workload{caller(oneCaller), callee(oneCallee)}},
				{Name: "two-a", Workloads: []meshlab.Workload{caller(twoCaller)}},
				{Name: "two-b", Workloads: []meshlab.Workload{callee(twoCallee)}},
			},
			Strangers: []meshlab.Workload{
				callee(freeCallee), caller(freeCaller), callee(heldCallee),
				caller(heldCaller),
			},
			Files: map[string]string{
				"mesh.yaml": meshYAML(alpha, alphaOuter),
				"one.yaml": serviceYAML(oneCallee, ps) + allowYAML(oneCallee,
					alpha+".example/ns/default/sa/"+oneCaller),
				"two.yaml": serviceYAML(twoCallee, ps) + allowYAML(twoCallee,
					alpha+".example/ns/default/sa/"+twoCaller),
			},
		},
		{
			Name: beta, Gateway: true,
			Nodes:     []meshlab.Node{{Name: "far", Workloads: []meshlab.Workload{callee(farCallee)}}},
			Strangers: []meshlab.Workload{callee(heldFarCallee)},
			Files: map[string]string{
				"mesh.yaml": meshYAML(beta, betaOuter),
				"far.yaml": serviceYAML(farCallee, ps) + allowYAML(farCallee,
					alpha+".example/ns/default/sa/"+twoCaller) +
					allowOnPortYAML(farCallee, beta+".example/ns/isthmus-system/sa/federation-gateway", 9090),
			},
		},
	}
}

func meshYAML(name, gateway string) string {
	return fmt.Sprintf(`apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata:
  name: %[1]s
spec:
  trustDomain: %[1]s.example
  federation:
    name: %[1]s
    gatewayAddresses: ["%[2]s:15443"]
---
apiVersion: v1
kind: Namespace
metadata:
  name: default
---
apiVersion: v1
kind: Namespace
metadata:
  name: isthmus-system
`, name, gateway)
}

func serviceYAML(name string, ps []protocol) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata:
  name: %[1]s
  namespace: default
spec:
  selector:
    app: %[1]s
  ports:
`, name)
	for _, p := range ps {
		fmt.Fprintf(&b, "  - name: %s-%s\n    port: %d\n    targetPort: %d\n", p.Prefix, p.Name, p.Port, p.App)
	}
	return b.String()
}

func allowYAML(name, principal string) string { return policyYAML(name, name, principal, "") }

// allowOnPortYAML lets a gateway pass raw bytes: a raw connection names no caller of its own.
func allowOnPortYAML(name, principal string, port int) string {
	return policyYAML(name, fmt.Sprintf("%s-%d", name, port), principal,
		fmt.Sprintf("    to:\n    - operation:\n        ports: [\"%d\"]\n", port))
}

func policyYAML(app, name, principal, to string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: %s
  namespace: default
spec:
  selector:
    matchLabels:
      app: %s
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["%s"]
%s`, name, app, principal, to)
}

// startMeshes starts both meshes, makes them peers, and imports beta's services into alpha.
func startMeshes(ctx context.Context, env *environment) error {
	for _, m := range meshes(env.protocols) {
		r, err := env.lab.Run(ctx, m)
		if err != nil {
			return err
		}
		env.meshes[m.Name] = r
	}
	if err := meshlab.Peer(ctx, env.meshes[beta], env.meshes[alpha]); err != nil {
		return fmt.Errorf("make the meshes peers: %w", err)
	}
	var exports, imports strings.Builder
	for _, p := range env.protocols {
		exports.WriteString(exportYAML(p))
		imports.WriteString(importYAML(p))
	}
	if err := env.meshes[beta].Write("exports.yaml", exports.String()); err != nil {
		return err
	}
	return env.meshes[alpha].Write("imports.yaml", imports.String())
}

func farName(p protocol) string { return "far-" + p.Name }

func exportYAML(p protocol) string {
	rules := ""
	if p.HTTP {
		rules = fmt.Sprintf("\n    rules:\n    - callers: [\"spiffe://%s.example/ns/default/sa/%s\"]", alpha, twoCaller)
	}
	return fmt.Sprintf(`---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata:
  name: %s
  namespace: default
spec:
  service: %s
  port: %d
  alias: %[1]s
  to:
  - peer: %[4]s%[5]s
`, farName(p), farCallee, p.Port, alpha, rules)
}

func importYAML(p protocol) string {
	return fmt.Sprintf(`---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata:
  name: %s
  namespace: default
spec:
  port: %d
  protocol: %s
  from:
  - peer: %s
  callers: ["%s"]
`, farName(p), p.Port, strings.ToUpper(p.Prefix), beta, twoCaller)
}
