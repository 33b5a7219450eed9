package model

import (
	"net/netip"
	"slices"
	"strings"
)

// Action of a policy.
type Action int

// The actions. The zero value denies.
const (
	Deny Action = iota
	Allow
)

func (a Action) String() string { return [...]string{"DENY", "ALLOW"}[a] }

// Policies that apply to one port.
type Policies struct {
	Deny         []*Policy
	Allow        []*Policy
	DefaultAllow bool // where no Allow policy applies
}

// Policy is one AuthorizationPolicy as it applies to a workload.
type Policy struct {
	Name   string // namespace/name
	Action Action
	Rules  []Rule // any may match; none matches nothing
	Ref    Ref
}

// Rule matches when one of From (if any), one of To (if any) and all of When match.
type Rule struct {
	Number int // as written, from 0: records name the rule by it
	From   []Source
	To     []Operation
	When   []Condition
}

// NeedsHTTP says whether a rule asks for something that only a request has: an operation's host, method or path, or a
// header.
func (r Rule) NeedsHTTP() bool {
	return slices.ContainsFunc(r.To, func(o Operation) bool {
		return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0
	}) || slices.ContainsFunc(r.When, func(w Condition) bool { return strings.HasPrefix(w.Key, "request.") })
}

// NamesPeers says whether a principal is one that a peer's gateway asserts.
func (s Source) NamesPeers() bool {
	ofPeer := func(p Principal) bool { return p.Peer != "" }
	return slices.ContainsFunc(s.Principals, ofPeer) || slices.ContainsFunc(s.NotPrincipals, ofPeer)
}

// Source matches when each of its fields that is set matches; each NotX when none of its values does.
type Source struct {
	Principals, NotPrincipals           []Principal
	Namespaces, NotNamespaces           []string // "*" anywhere
	TrustDomains, NotTrustDomains       []string // one "*"
	IPBlocks, NotIPBlocks               []netip.Prefix
	RemoteIPBlocks, NotRemoteIPBlocks   []netip.Prefix
	ServiceAccounts, NotServiceAccounts []Principal
}

// ClosedPrefix begins the name of a policy that closes, in place of an object that is written and not in force.
const ClosedPrefix = "closed-by-"

// Principal is an identity to compare with.
type Principal struct {
	Match Match // of the whole SPIFFE ID
	// Peer is set when the identity lies in that MeshPeer's trust domain: it is then the caller that the peer's gateway
	// asserts, believed only on a connection from one of this mesh's own gateways.
	Peer string
}

// MatchKind says how a string is compared.
type MatchKind int

// The kinds of match.
const (
	Exact MatchKind = iota
	Prefix
	Suffix
	Present
	Template // path template of Istio: {*} one segment, {**} the rest
)

// Match compares a string.
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

// Condition is one "when". Key is as Istio writes it; Matches for string keys, Prefixes and Ports for typed ones.
type Condition struct {
	Key                   string
	Matches, NotMatches   []Match
	Prefixes, NotPrefixes []netip.Prefix
	Ports, NotPorts       []uint16
	Sources, NotSources   []Source // source.* keys, as the source they mean
}
