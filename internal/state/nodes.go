package state

import (
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Token is a join token as it is kept: its secret only as a hash.
type Token struct {
	ID        string
	Hash      [32]byte // SHA-256 of the secret
	Node      string
	Role      snapshot.Role
	Grant     grant.Grant // the node's, once it has joined
	Created   time.Time
	MadeBy    string
	Expires   time.Time
	Cancelled time.Time // zero: not
	UsedAt    time.Time // zero: not yet
	UsedBy    string
}

// Registration is what one node says of itself.
type Registration struct {
	Node snapshot.Node
	// Conversation is the number of that in which it was said. Later ones have higher numbers.
	Conversation uint64
	Workloads    []snapshot.Workload
}

// Agent is the standing conversation of a node's agent with a control plane.
type Agent struct {
	Node         string
	Conversation uint64
	Holder       string // the control plane, as it holds leases
	Report       []byte // what it said last
}

// Node is one attested agent.
type Node struct {
	snapshot.Node
	Generation string // the ID of the token that it joined with; only certificates that carry it are this node's
	Grant      grant.Grant
	Attested   time.Time
	LastSeen   time.Time
	Revoked    time.Time // zero: not
}
