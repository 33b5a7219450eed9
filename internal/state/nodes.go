package state

import (
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Token is a stored join token. Its secret is stored only as a hash.
type Token struct {
	ID        string
	Hash      [32]byte // SHA-256 of the secret
	Node      string
	Role      snapshot.Role
	Grant     grant.Grant // becomes the node's grant when it joins
	Created   time.Time
	MadeBy    string
	Expires   time.Time
	Cancelled time.Time // zero: not cancelled
	UsedAt    time.Time // zero: not used
	UsedBy    string
}

// Registration is what a node reports about itself.
type Registration struct {
	Node snapshot.Node
	// Conversation is the number of the session that carried the report. Later sessions have higher numbers.
	Conversation uint64
	Workloads    []snapshot.Workload
	Generation   string // of the node's certificates; RegisterNode ignores it
}

// Agent is the open session of a node's agent with a control plane.
type Agent struct {
	Node         string
	Conversation uint64
	Holder       string // the control plane, named as in leases
	Report       []byte // its last report
}

// Node is an attested agent.
type Node struct {
	snapshot.Node
	Generation string // ID of the token with which it joined; only certificates with this generation are valid
	Grant      grant.Grant
	Attested   time.Time
	LastSeen   time.Time
	Revoked    time.Time // zero: not revoked
}
