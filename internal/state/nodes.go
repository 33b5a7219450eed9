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

// Node is one attested agent.
type Node struct {
	snapshot.Node
	Generation string // the ID of the token that it joined with; only certificates that carry it are this node's
	Grant      grant.Grant
	Attested   time.Time
	LastSeen   time.Time
	Revoked    time.Time // zero: not
}
