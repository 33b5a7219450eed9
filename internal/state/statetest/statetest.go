// Package statetest is the contract of the control plane's state: what any database that holds it must keep.
package statetest

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

// Store is all that a database must do. Consumers declare the part that they use.
type Store interface {
	Blobs
	Tokens
	Invites
	Nodes
	VIPs
	Peers
	Certs
	Rotations
	Quarantines
	Events
	Admins
	ConfigAges
}

// Blobs hold CA material.
type Blobs interface {
	AddBlob(context.Context, state.Blob) error
	PutBlob(context.Context, state.Blob) error
	Blob(ctx context.Context, name string) (state.Blob, error)
	Blobs(context.Context) ([]state.Blob, error)
	DeleteBlob(ctx context.Context, name string) error
}

// Tokens let nodes join, once each.
type Tokens interface {
	AddToken(context.Context, state.Token) error
	UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (state.Token, error)
	CancelToken(ctx context.Context, id string, now time.Time) error
	CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (int64, error)
	Tokens(context.Context) ([]state.Token, error)
	EndExpired(ctx context.Context, now time.Time) error
}

// Invites let peers in, once each.
type Invites interface {
	AddInvite(context.Context, state.Invite) error
	UseInvite(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (state.Invite, error)
	OpenInvites(ctx context.Context, now time.Time) ([]snapshot.Invite, error)
	CancelInvites(ctx context.Context, peer string) error
	PutBootstrap(ctx context.Context, b snapshot.Bootstrap, expires time.Time) error
	Bootstraps(ctx context.Context, now time.Time) ([]snapshot.Bootstrap, error)
	DeleteBootstrap(ctx context.Context, id string) error
}

// Nodes are the attested agents and what they registered.
type Nodes interface {
	AttestNode(context.Context, state.Node) error
	Node(ctx context.Context, name string) (state.Node, error)
	NodeOf(ctx context.Context, generation string) (state.Node, error)
	Nodes(context.Context) ([]state.Node, error)
	SeenNode(ctx context.Context, name string, now time.Time) error
	RegisterNode(ctx context.Context, n snapshot.Node, workloads []snapshot.Workload, now time.Time) error
	RevokeNode(ctx context.Context, name string, now time.Time) error
	DeleteNode(ctx context.Context, name string) error
	Registry(context.Context) (*snapshot.Registry, error)
}

// VIPs are the stable virtual addresses.
type VIPs interface {
	SaveVIPs(ctx context.Context, c vip.Change) error
	VIPs(ctx context.Context) ([]vip.Row, error)
}

// Peers are the peer meshes.
type Peers interface {
	EstablishPeer(ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time) error
	Peer(ctx context.Context, name string) (state.Peer, error)
	Peers(context.Context) ([]state.Peer, error)
	SetPeerBundle(ctx context.Context, name string, roots []byte, sequence uint64, now time.Time) error
	AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error
	SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue) error
	SetPeerObject(ctx context.Context, object *v1alpha1.MeshPeer) error
	SetPeerSuspended(ctx context.Context, name string, suspended bool) error
	RevokePeer(ctx context.Context, name string, now time.Time) error
	NextSequence(ctx context.Context, name string, now time.Time) (uint64, error)
}

// Admins are administrators' certificates.
type Admins interface {
	AddAdmin(context.Context, state.Admin) error
	Admin(ctx context.Context, generation string) (state.Admin, error)
	Admins(context.Context) ([]state.Admin, error)
	RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error
}

// Quarantines are the objects that proxies could not live with.
type Quarantines interface {
	Quarantines(context.Context) ([]state.Quarantine, error)
	ChangeQuarantines(ctx context.Context, add, end []state.Quarantine) error
}

// Rotations are how the root is replaced.
type Rotations interface {
	Rotation(context.Context) (state.Rotation, error)
	PutRotation(ctx context.Context, r state.Rotation, put []state.Blob, remove []string) error
	CertsUnder(ctx context.Context, root string, now time.Time) ([]state.CertUse, error)
}

// Events are what was done, by whom.
type Events interface {
	Record(context.Context, state.Event) error
	BeginEvent(context.Context, state.Event) (uint64, error)
	EndEvent(ctx context.Context, seq uint64, e state.Event) error
	Events(context.Context, state.EventFilter) ([]state.Event, error)
}

// Certs are the issued certificates.
type Certs interface {
	AddCert(context.Context, state.Cert) error
	AddCerts(context.Context, []state.Cert) error
	Cert(ctx context.Context, fingerprint string) (state.Cert, error)
	Certs(context.Context, state.CertFilter) ([]state.Cert, error)
	PruneCerts(ctx context.Context, before time.Time) error
	Prune(ctx context.Context, before time.Time) error
}

// Run holds a database to the contract. open gives an empty one for each test.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Store)
	}{
		{"blobs", blobs},
		{"token is used once", tokenOnce},
		{"token refusals", tokenRefusals},
		{"of a hundred racing uses one wins", tokenRace},
		{"what ended stays ended", tokenEnded},
		{"invites", invites},
		{"of a hundred racing acceptances one wins", inviteRace},
		{"bootstraps", bootstraps},
		{"nodes", nodes},
		{"registry", registry},
		{"revoked node", revokedNode},
		{"vips", vips},
		{"peers", peers},
		{"peer roots", peerRoots},
		{"revoked peer", revokedPeer},
		{"sequences", sequences},
		{"certs", certs},
		{"certs written together", certsTogether},
		{"cancelled token", cancelledToken},
		{"revoked while it joins", revokedWhileJoining},
		{"admins", admins},
		{"certs under a root", certsUnder},
		{"rotation", rotation},
		{"quarantines", quarantines},
		{"events", events},
		{"event with an end", eventWithEnd},
		{"events are kept", eventsAreKept},
		{"events are bounded", eventsAreBounded},
		{"events outlive a clock", eventsOutliveAClock},
		{"refusals are folded", refusalsAreFolded},
		{"refusals leave room", refusalsLeaveRoom},
		{"ages of configuration", configAges},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// epoch is the present of all tests.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return epoch.Add(d) }

func hash(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }
