package state

import (
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Invite is an invitation to a peer as it is kept: its secret only as a hash.
type Invite struct {
	ID      string
	Hash    [32]byte // SHA-256 of the secret
	Peer    string   // MeshPeer name that it was made for
	Created time.Time
	Expires time.Time
	UsedAt  time.Time // zero: not yet
	UsedBy  string
}

// Peer is what is known of one peer mesh beyond what files say.
type Peer struct {
	Name   string
	Object *v1alpha1.MeshPeer // made by token; nil for a peer whose object is a file
	Made   time.Time          // when it was made by token; zero for a file
	State  snapshot.PeerState
	// Revoked is when the peering was ended by command, zero if it was not. It holds against a file too.
	Revoked time.Time
}
