package model

import (
	"net/netip"
	"slices"
	"strings"
)

// Action is what a policy does with the requests that it matches.
type Action int

// The actions. The zero value denies.
const (
	Deny Action = iota
	Allow
)

func (a Action) String() string { return [...]string{"DENY", "ALLOW"}[a] }

// Policies are the authorization policies of one port.
type Policies struct {
	Deny         []*Policy
	Allow        []*Policy
	DefaultAllow bool // where no ALLOW policy applies
}

// Policy is one AuthorizationPolicy as it applies to a workload.
type Policy struct {
	Name   string // namespace/name
	Action Action
	Rules  []Rule // a request must match one of them; no rules match nothing
	Ref    Ref
}

// Rule matches when one of From, one of To and all of When match. An empty list matches everything.
type Rule struct {
	Number int // index in the policy's spec.rules; access logs name the rule by it
	From   []Source
	To     []Operation
	When   []Condition
}

// NeedsHTTP reports whether a rule tests something that only an HTTP request has: an operation's host, method or path,
// or a header.
func (r Rule) NeedsHTTP() bool {
	return slices.ContainsFunc(r.To, func(o Operation) bool {
		return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0
	}) || slices.ContainsFunc(r.When, func(w Condition) bool { return strings.HasPrefix(w.Key, "request.") })
}

// NamesPeers reports whether a source names a principal of a peer mesh.
func (s Source) NamesPeers() bool {
	ofPeer := func(p Principal) bool { return p.Peer != "" }
	return slices.ContainsFunc(s.Principals, ofPeer) || slices.ContainsFunc(s.NotPrincipals, ofPeer)
}

// Source matches when every field that is set has a matching value, and no NotX field has one.
type Source struct {
	Principals, NotPrincipals           []Principal
	Namespaces, NotNamespaces           []string // "*" anywhere in the value
	TrustDomains, NotTrustDomains       []string // one "*"
	IPBlocks, NotIPBlocks               []netip.Prefix
	RemoteIPBlocks, NotRemoteIPBlocks   []netip.Prefix
	ServiceAccounts, NotServiceAccounts []Principal
}

// ClosedPrefix starts the name of the synthetic policy that denies all calls to what a Closed object selects.
const ClosedPrefix = "closed-by-"

// Principal is an identity pattern.
type Principal struct {
	Match Match // against the whole SPIFFE ID
	// Peer is the MeshPeer whose trust domain contains the identity, if any. Such a caller is asserted by the peer's
	// gateway; the assertion is believed only on a connection from one of this mesh's own gateways.
	Peer string
}

// MatchKind selects how two strings are compared.
type MatchKind int

// The kinds of match.
const (
	Exact MatchKind = iota
	Prefix
	Suffix
	Present
	Template // Istio path template: {*} is one segment, {**} any number of segments
)

// Match is a string pattern.
type Match struct {
	Kind  MatchKind
	Value string
}

// Operation matches a request.
type Operation struct {
	Hosts, NotHosts     []Match // case-insensitive
	Ports, NotPorts     []uint16
	Methods, NotMethods []Match
	Paths, NotPaths     []Match
}

// Condition is one "when" entry. Key is Istio's attribute name. Matches holds the values of string attributes, Prefixes
// and Ports those of typed ones.
type Condition struct {
	Key                   string
	Matches, NotMatches   []Match
	Prefixes, NotPrefixes []netip.Prefix
	Ports, NotPorts       []uint16
	Sources, NotSources   []Source // for source.* keys
}
