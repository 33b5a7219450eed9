// Package model is the compiled mesh: identities, services, who may call whom, and what crosses to peers. It knows
// neither Kubernetes nor Envoy. A Mesh and everything reachable from it are read-only once compiled.
//
// Each file holds one subject. The packages compile, view and envoy use the same file names: services, workloads,
// endpoints, outbound and routing (where calls lead), authz (who may call), federation and proxies.
package model

import (
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Mesh is the compiled state of one mesh.
type Mesh struct {
	Name           string
	TrustDomain    spiffe.TrustDomain
	Domain         string // DNS suffix, "cluster.local"
	RootNamespace  string
	CertificateTTL time.Duration
	AllowAny       bool // workloads may call addresses that no service lists
	HandOver       bool // calls between two workloads of one proxy do not leave the proxy
	Namespaces     []string

	Services  map[ServiceID]*Service
	Workloads map[WorkloadID]*Workload
	Proxies   map[string]*Proxy // by node name
	// Endpoints by set. They change far more often than the rest and are sent separately (EDS).
	Endpoints map[EndpointSet][]Endpoint
	// Gateways are the SPIFFE IDs of the mesh's gateways, sorted. Only these may assert the identity of a peer's
	// caller.
	Gateways []string

	Peers   map[string]*Peer // by MeshPeer name; only those that may be used now
	Exports []*Export
	Imports []*Import
	// Invites and Bootstraps are peerings in progress.
	Invites    []Invite
	Bootstraps []Bootstrap

	// Roots are the PEM root certificates by trust domain: this mesh's own and those of its live peers.
	Roots map[string][]byte
}

// Ref is a configuration object that something was compiled from: "Kind namespace/name (file:line)".
type Ref string
