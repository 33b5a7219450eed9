package state

import (
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Invite is a stored invitation to a peer. Its secret is stored only as a hash.
type Invite struct {
	ID      string
	Hash    [32]byte // SHA-256 of the secret
	Peer    string   // the future MeshPeer's name
	Created time.Time
	Expires time.Time
	UsedAt  time.Time // zero: not used
	UsedBy  string
}

// Peer is what is known of a peer mesh beyond the files.
type Peer struct {
	Name   string
	Object *v1alpha1.MeshPeer // made by token; nil if the peer is defined in a file
	Made   time.Time          // when it was made by token; zero for a file
	State  snapshot.PeerState
	// Revoked is when the peering was ended by command, or zero. It overrides a file.
	Revoked time.Time
}
