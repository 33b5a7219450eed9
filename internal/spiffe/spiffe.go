// Package spiffe defines the identities of a mesh. go-spiffe does the parsing; this package defines the paths.
//
//	workload       spiffe://<td>/ns/<namespace>/sa/<service-account>   (Istio's form)
//	gateway        spiffe://<td>/ns/isthmus-system/sa/<service-account>
//	node agent     spiffe://<td>/isthmus/node/<name>
//	control plane  spiffe://<td>/isthmus/control
//	administrator  spiffe://<td>/isthmus/admin/<name>
package spiffe

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ID is a SPIFFE ID.
type ID = spiffeid.ID

// TrustDomain is a SPIFFE trust domain.
type TrustDomain = spiffeid.TrustDomain

// SystemNamespace is the namespace of gateways.
const SystemNamespace = "isthmus-system"

// maxTrustDomain is the maximum length of a trust domain name in bytes (SPIFFE-ID §2.1).
const maxTrustDomain = 255

// ParseTrustDomain parses a trust domain name such as "cards.example". It also refuses names that begin or end with a
// dot, hyphen or underscore: trust domains become parts of TLS server names, which lose a trailing dot.
func ParseTrustDomain(s string) (TrustDomain, error) {
	if len(s) > maxTrustDomain {
		return TrustDomain{}, fmt.Errorf("a trust domain of %d bytes; it may have %d", len(s), maxTrustDomain)
	}
	td, err := spiffeid.TrustDomainFromString(s)
	if name := td.Name(); err == nil && strings.Trim(name, ".-_") != name {
		return TrustDomain{}, fmt.Errorf("trust domain %q begins or ends with a character that is "+
			"neither a letter nor a digit", name)
	}
	return td, err
}

// Parse parses a SPIFFE ID such as "spiffe://cards.example/ns/default/sa/payments".
func Parse(s string) (ID, error) { return spiffeid.FromString(s) }

// Workload returns the identity of a service account.
func Workload(td TrustDomain, namespace, serviceAccount string) (ID, error) {
	return spiffeid.FromSegments(td, "ns", namespace, "sa", serviceAccount)
}

// Node returns the identity of a node agent. Only the control API accepts it; workloads never do.
func Node(td TrustDomain, name string) (ID, error) {
	return spiffeid.FromSegments(td, "isthmus", "node", name)
}

// Admin returns the identity of an administrator's client.
func Admin(td TrustDomain, name string) (ID, error) {
	return spiffeid.FromSegments(td, "isthmus", "admin", name)
}

// Control returns the identity of the control plane.
func Control(td TrustDomain) ID {
	id, err := spiffeid.FromSegments(td, "isthmus", "control")
	if err != nil {
		panic(fmt.Sprintf("constant path refused: %v", err)) // the segments are constants
	}
	return id
}

// WorkloadParts splits a workload ID. ok is false for other IDs.
func WorkloadParts(id ID) (namespace, serviceAccount string, ok bool) {
	seg := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	if len(seg) != 4 || seg[0] != "ns" || seg[2] != "sa" {
		return "", "", false
	}
	return seg[1], seg[3], true
}

// NodeName returns the name in a node ID. ok is false for other IDs.
func NodeName(id ID) (name string, ok bool) { return named(id, "node") }

// AdminName returns the name in an administrator's ID. ok is false for other IDs.
func AdminName(id ID) (name string, ok bool) { return named(id, "admin") }

func named(id ID, role string) (string, bool) {
	name, ok := strings.CutPrefix(id.Path(), "/isthmus/"+role+"/")
	return name, ok && name != "" && !strings.Contains(name, "/")
}
