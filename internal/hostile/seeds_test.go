package hostile

import (
	"strings"

	"sigs.k8s.io/yaml"
)

// token is in every name of a scene, so that many scenes fit into one mesh.
const token = "g0000"

// seeds are documents of each kind to begin with. Together the first ones make a scene in which every object reaches an
// Envoy: a workload that serves HTTP on 8080 and raw TCP on 9000 and 9001, callers, a peer, an export, an import.
var seeds = map[string][]string{
	"Mesh": {`
apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: own}
spec:
  trustDomain: own.example
  domain: cluster.local
  outbound: AllowAny
  mtls: STRICT
  rootNamespace: root
  certificateTTL: 1h
  trustDomainAliases: [old.example]
  federation: {name: own, gatewayAddresses: ["192.0.2.1:15443"]}
`},
	"MeshPeer": {`
apiVersion: isthmus.dev/v1alpha1
kind: MeshPeer
metadata: {name: g0000}
spec:
  trustDomain: g0000.example
  knownAs: own
  gatewayAddresses: ["198.51.100.12:15443"]
  gatewayIDs: ["spiffe://g0000.example/ns/isthmus-system/sa/gateway"]
  bundle: {inline: "ROOTS", refresh: false}
  maxBundleAge: 24h
`},
	"FederatedExport": {`
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: web, namespace: g0000}
spec:
  service: web
  port: 80
  alias: shop
  to:
  - peer: g0000
    rules:
    - callers: ["spiffe://g0000.example/ns/shop/sa/till", "spiffe://g0000.example/ns/shop/*"]
      methods: [GET]
      paths: [/a, /b/*]
`, `
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: raw, namespace: g0000}
spec: {service: web, port: 90, to: [{peer: g0000}]}
`},
	"FederatedImport": {`
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: books, namespace: g0000}
spec:
  port: 8000
  protocol: HTTP
  from: [{peer: g0000, name: books, namespace: shop, weight: 2, priority: 1}]
  callers: [web]
`, `
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: web, namespace: g0000}
spec:
  port: 80
  protocol: HTTP
  from: [{peer: g0000, name: web}]
  local: {weight: 1, priority: 1}
  callers: [web]
`, `
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: raw, namespace: g0000}
spec: {port: 9000, protocol: TCP, from: [{peer: g0000, weight: 1}], callers: [web]}
`},
	"Namespace": {`
apiVersion: v1
kind: Namespace
metadata: {name: g0000, labels: {app: a}}
`},
	"Service": {`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: g0000, labels: {app: web}}
spec:
  selector: {app: web}
  ports:
  - {name: http-a, port: 80, targetPort: 8080, appProtocol: http}
  - {name: tcp-a, port: 90, targetPort: tcp-a}
  - {name: tcp-b, port: 91, targetPort: 9001, protocol: TCP}
`, `
apiVersion: v1
kind: Service
metadata: {name: more, namespace: g0000}
spec:
  clusterIP: 10.99.0.1
  clusterIPs: [10.99.0.1]
  externalIPs: [192.0.2.1]
  selector: {app: web}
  ports: [{name: http, port: 80}]
`},
	"PeerAuthentication": {`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: g0000}
spec:
  selector: {matchLabels: {app: web}}
  mtls: {mode: STRICT}
  portLevelMtls: {9001: {mode: PERMISSIVE}}
`},
	"AuthorizationPolicy": {`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: g0000}
spec:
  action: ALLOW
  selector: {matchLabels: {app: web}}
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/g0000/sa/web]
        notPrincipals: ["*/sa/bad"]
        ipBlocks: [10.0.0.0/8]
        notIpBlocks: [10.9.0.0/16]
        remoteIpBlocks: [10.0.0.0/8]
        notRemoteIpBlocks: [10.9.0.0/16]
        namespaces: [g0000]
        notNamespaces: [bad*]
        trustDomains: [own.example]
        notTrustDomains: [bad*]
    to:
    - operation:
        hosts: [web.example]
        notHosts: ["*.bad.example"]
        ports: ["8080"]
        notPorts: ["1"]
        methods: [GET]
        notMethods: [PUT]
        paths: ["/a/{*}/b"]
        notPaths: [/private*]
    when:
    - key: request.headers[x-role]
      values: [admin]
      notValues: [guest*]
`, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: g0000}
spec:
  action: DENY
  rules:
  - from: [{source: {serviceAccounts: [bad], notServiceAccounts: [g0000/web]}}]
    to: [{operation: {paths: [/annual/*]}}]
    when:
    - {key: "request.headers[x-role]", values: [admin], notValues: ["*ops"]}
`, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-raw, namespace: g0000}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/g0000/sa/bad-apple]}}]}]
`, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-raw, namespace: g0000}
spec:
  rules: [{from: [{source: {principals: ["*/sa/web"]}}], when: [{key: source.ip, values: [10.0.0.0/8]}]}]
`, `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: g0000}
spec: {rules: [{}]}
`},
	"ServiceEntry": {`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank, namespace: g0000}
spec:
  hosts: [g0000.bank.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  addresses: [192.0.2.0/24]
  exportTo: [.]
  ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]
  endpoints: [{address: 198.51.100.7, ports: {tls: 444}, labels: {app: bank}, weight: 3, serviceAccount: bank, network: a, locality: a/b}]
`, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rates, namespace: g0000}
spec:
  hosts: [g0000.rates.example]
  resolution: DNS
  exportTo: [.]
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: rates.example}]
`, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inner, namespace: g0000}
spec:
  hosts: [g0000.inner.example]
  location: MESH_INTERNAL
  resolution: STATIC
  exportTo: [.]
  ports: [{number: 5000, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: web}}
`},
	"Sidecar": {`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: sees, namespace: g0000}
spec: {egress: [{hosts: ["./*"]}]}
`, `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: few, namespace: g0000}
spec: {egress: [{hosts: [g0000/web.g0000.svc.cluster.local, "*/*.example", "~bad/*", "~/g0000.inner.example"]}]}
`},
	"WorkloadEntry": {`
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: g0000}
spec: {address: 198.51.100.9, ports: {tcp-a: 9000}, labels: {app: web}, weight: 2, serviceAccount: vm, network: a, locality: a/b}
`},
}

// parsed are the seeds as documents.
var parsed = func() map[string][]map[string]any {
	out := map[string][]map[string]any{}
	for kind, list := range seeds {
		for _, s := range list {
			var doc map[string]any
			if err := yaml.Unmarshal([]byte(strings.TrimSpace(s)), &doc); err != nil {
				panic(kind + ": " + err.Error())
			}
			out[kind] = append(out[kind], doc)
		}
	}
	return out
}()
