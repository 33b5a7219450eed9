// Package model is the mesh as it is meant: identities, services, who may call whom, and what crosses to peers.
// It knows neither Kubernetes nor Envoy. A Mesh and everything it holds are read-only once compiled.
//
// A file holds one subject, under the name that it has in compile, view and envoy too: services, workloads, endpoints,
// outbound (where calls lead), authz (who may call), federation and proxies.
package model

import (
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Mesh is one mesh at one moment.
type Mesh struct {
	Name           string
	TrustDomain    spiffe.TrustDomain
	Domain         string // DNS suffix, "cluster.local"
	RootNamespace  string
	CertificateTTL time.Duration
	AllowAny       bool // unlisted addresses may be called
	HandOver       bool // calls between two workloads of one proxy stay inside it
	Namespaces     []string

	Services  map[ServiceID]*Service
	Workloads map[WorkloadID]*Workload
	Proxies   map[string]*Proxy // by node name
	// Endpoints by set. They change most often, alone, and travel by themselves.
	Endpoints map[EndpointSet][]Endpoint
	// Gateways are the SPIFFE IDs of the mesh's gateways, sorted: the only ones whose word on a peer's caller is
	// believed.
	Gateways []string

	Peers   map[string]*Peer // by MeshPeer name, only those that may be used now
	Exports []*Export
	Imports []*Import
	// Invites and Bootstraps are peerings being made.
	Invites    []Invite
	Bootstraps []Bootstrap

	// Roots by trust domain, PEM: the mesh's own and those of its live peers.
	Roots map[string][]byte
}

// Ref is the configuration object that something comes from: "Kind namespace/name (file:line)".
type Ref string
