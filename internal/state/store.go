package state

import (
	"context"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/vip"
)

// Store is all that a database must do. Consumers declare the part that they use.
//
// A method that writes returns when what it wrote is durable; one that returns an error has written nothing, unless it
// says otherwise. Changes happen one after the other, whoever asks for them, and one that needs several statements
// happens as a whole or not at all. Time is an argument.
type Store interface {
	Blobs
	Tokens
	Invites
	NodeStore
	AgentStore
	Leases
	VIPs
	PeerStore
	Certs
	Rotations
	Quarantines
	Events
	AdminStore
	ConfigAges

	// Watch sends what is written from now on, by this process and by others on the same database, until ctx ends. What
	// comes while nobody receives is kept, folded where it is alike.
	Watch(ctx context.Context) <-chan []Change
	// Place names the database in words, without a secret.
	Place() string
	// Check looks at all that is kept, as opening does: ErrDamaged says what is not as it was written.
	Check(ctx context.Context) error
	Close() error
}

// Blobs hold CA material.
type Blobs interface {
	// PutBlob writes a blob over the one of its name whose certificate is was; nil: there is none. ErrSuperseded when
	// another one is there.
	PutBlob(ctx context.Context, b Blob, was []byte) error
	// Blob reads one; ErrNotFound when there is none.
	Blob(ctx context.Context, name string) (Blob, error)
}

// Tokens let nodes join, once each.
type Tokens interface {
	// AddToken writes a new token; ErrExists when its ID is taken.
	AddToken(context.Context, Token) error
	// UseToken marks a token as used and returns it. Of all who try, at any time and through any control plane, one
	// succeeds. The others get ErrNotFound, ErrSecret, ErrUsed or ErrExpired, and the refusal is recorded.
	UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Token, error)
	// CancelToken ends a token that was not used yet. ErrNotFound when there is none, ErrUsed when it was used.
	CancelToken(ctx context.Context, id string, now time.Time) error
	// CancelTokensMadeBy ends the tokens of one maker that were not used yet, and says how many. None is no error.
	CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (int64, error)
	// Tokens reads all, oldest first.
	Tokens(context.Context) ([]Token, error)
	// EndExpired closes tokens and invitations whose time is over for good, whatever the clock says later.
	EndExpired(ctx context.Context, now time.Time) error
}

// Invites let peers in, once each.
type Invites interface {
	// AddInvite writes a new invitation; ErrExists when its ID is taken.
	AddInvite(context.Context, Invite) error
	// UseInvite marks an invitation as used and returns it, as UseToken does.
	UseInvite(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Invite, error)
	// OpenInvites reads those that can still be used, sorted by ID.
	OpenInvites(ctx context.Context, now time.Time) ([]snapshot.Invite, error)
	// CancelInvites removes a peer's invitations that were not used.
	CancelInvites(ctx context.Context, peer string) error
	// PutBootstrap writes an acceptance under way, until expires.
	PutBootstrap(ctx context.Context, b snapshot.Bootstrap, expires time.Time) error
	// Bootstraps reads the acceptances under way, sorted by ID.
	Bootstraps(ctx context.Context, now time.Time) ([]snapshot.Bootstrap, error)
	// DeleteBootstrap ends one, if it is there.
	DeleteBootstrap(ctx context.Context, id string) error
}

// NodeStore has the attested agents and what they registered.
type NodeStore interface {
	// AttestNode writes a node that proved itself by a token: a new one, or a known one that joins again. Joining
	// again begins a new generation and ends a revocation; that takes a token made after the revocation: ErrRevoked
	// otherwise.
	AttestNode(context.Context, Node) error
	// Node reads one; ErrNotFound when there is none.
	Node(ctx context.Context, name string) (Node, error)
	// NodeOf reads the node of a generation; ErrNotFound when there is none (any more).
	NodeOf(ctx context.Context, generation string) (Node, error)
	// Nodes reads all, the revoked ones too, sorted by name.
	Nodes(context.Context) ([]Node, error)
	// BeginConversation numbers a conversation with a node's agent: later ones have higher numbers. ErrNotFound for a
	// node that is revoked or has no such generation (any more). Joining again ends those that began before.
	BeginConversation(ctx context.Context, node, generation string) (uint64, error)
	// RegisterNode replaces what is known of a node by its reports: its gateway part and all its workloads. ErrRevoked
	// for a node that is revoked or was never attested, ErrSuperseded when it has spoken in a later conversation,
	// ErrExists when another node has the name or an address of one of the workloads.
	RegisterNode(ctx context.Context, r Registration, now time.Time) error
	// Registration reads what a node said last; ErrNotFound for one that is revoked or was never attested.
	Registration(ctx context.Context, node string) (Registration, error)
	// RevokeNode shuts a node out: its workloads go, and with them every token made for it, also one whose joining is
	// under way.
	RevokeNode(ctx context.Context, name string, now time.Time) error
	// Registry reads the nodes that are not revoked, and all workloads.
	Registry(context.Context) (*snapshot.Registry, error)
}

// AgentStore has the conversations that agents have with any control plane.
type AgentStore interface {
	// PutAgent writes a conversation, over an earlier one. ErrSuperseded when there is a later one.
	PutAgent(context.Context, Agent) error
	// EndAgent removes one, unless a later one has taken its place.
	EndAgent(ctx context.Context, node string, conversation uint64) error
	// Agent reads the one of a node; ErrNotFound when there is none.
	Agent(ctx context.Context, node string) (Agent, error)
	// Agents reads all, sorted by node.
	Agents(context.Context) ([]Agent, error)
}

// Leases say which control plane may do what only one may. They end by the database's own clock.
type Leases interface {
	// Acquire takes a lease, or keeps it and says something else, for so long. ErrExists while another one has it.
	Acquire(ctx context.Context, name, holder string, data []byte, ttl time.Duration) (Lease, error)
	// Release ends a lease, if it is still held.
	Release(ctx context.Context, l Lease) error
	// Leases reads those that are held now and whose names begin with a prefix, sorted by name.
	Leases(ctx context.Context, prefix string) ([]Lease, error)
	// Under is the store as the holder of a lease writes to it: ErrSuperseded, and nothing is written, once it is lost.
	Under(l Lease) Store
	// Shared says whether other control planes may use the same database.
	Shared() bool
}

// VIPs are the stable virtual addresses.
type VIPs interface {
	// SaveVIPs keeps a choice of virtual addresses. ErrExists when another control plane has given an address, or a
	// host, away meanwhile. When it fails a part of it may have been kept; the same choice may be saved again.
	SaveVIPs(ctx context.Context, c vip.Change) error
	// VIPs reads all that was kept.
	VIPs(ctx context.Context) ([]vip.Row, error)
}

// PeerStore has the peer meshes.
type PeerStore interface {
	// EstablishPeer writes a peering made by token: object and first roots, in place of all that was known under its
	// name. It ends a suspension or revocation, since both sides have consented anew.
	EstablishPeer(ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time) error
	// Peers reads all, the revoked ones too, sorted by name.
	Peers(context.Context) ([]Peer, error)
	// SetPeerBundle writes roots (PEM) confirmed at a time, in place of those of the sequence held. ErrSuperseded
	// when the peer is revoked or others are there.
	SetPeerBundle(ctx context.Context, name string, roots []byte, sequence, held uint64, now time.Time) error
	// AdoptPeerRoots writes the first roots (PEM) of a peer whose object is a file, in place of all that grew from
	// other ones. A suspension stays. ErrRevoked when the peer is revoked.
	AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error
	// SetPeerCatalogue writes what a peer offers, in place of the catalogue of the sequence held (0: none). ErrRevoked
	// when the peer is, ErrSuperseded when another one is there.
	SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue, held uint64) error
	// SetPeerReadiness writes what a peer said of the services that it offers, as SetPeerCatalogue does.
	SetPeerReadiness(ctx context.Context, name string, r snapshot.Readiness, held uint64) error
	// SetPeerObject writes the object of a peering made by token anew; its age stays. ErrRevoked when there is none
	// (any more).
	SetPeerObject(ctx context.Context, object *v1alpha1.MeshPeer) error
	// SetPeerSuspended suspends or resumes a peer.
	SetPeerSuspended(ctx context.Context, name string, suspended bool) error
	// RevokePeer ends a peering for good: roots, catalogue and open invitations go; a mark stays that no refresh can
	// undo.
	RevokePeer(ctx context.Context, name string, now time.Time) error
	// NextSequence is a number that grows with every call for a name, and with time: microseconds since 1970. What it
	// is asked for, if that is not empty, keeps its number until the name is asked for something else.
	NextSequence(ctx context.Context, name, of string, now time.Time) (uint64, error)
}

// AdminStore has administrators' certificates.
type AdminStore interface {
	// AddAdmin writes a new one.
	AddAdmin(context.Context, Admin) error
	// Admin reads one by the generation of its certificate; ErrNotFound when there is none.
	Admin(ctx context.Context, generation string) (Admin, error)
	// Admins reads all, sorted by name and age.
	Admins(context.Context) ([]Admin, error)
	// RevokeAdmins ends certificates that have not ended by themselves: those of a name, or that of one generation.
	RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error
}

// Quarantines are the objects that proxies could not live with.
type Quarantines interface {
	// Quarantines reads all, sorted by proxy and object.
	Quarantines(context.Context) ([]Quarantine, error)
	// ChangeQuarantines adds some and ends others.
	ChangeQuarantines(ctx context.Context, add, end []Quarantine) error
}

// Rotations are how the root is replaced.
type Rotations interface {
	// Rotation reads the one under way, or the last one; ErrNotFound when there never was one.
	Rotation(context.Context) (Rotation, error)
	// PutRotation writes how far a rotation has come since it was at from (empty: there was none), together with the CA
	// material that the step makes and unmakes. ErrSuperseded when it is elsewhere.
	PutRotation(ctx context.Context, from string, r Rotation, put []Blob, remove []string) error
	// CertsUnder are the certificates still valid at a moment that lead to a root, without administrators' that were
	// revoked.
	CertsUnder(ctx context.Context, root string, now time.Time) ([]CertUse, error)
}

// Events are what was done, by whom.
type Events interface {
	// Record writes an event. Refusals are folded: one that equals an earlier one in everything but its time is counted
	// with it.
	Record(context.Context, Event) error
	// BeginEvent writes that something is about to be done.
	BeginEvent(context.Context, Event) (seq uint64, err error)
	// EndEvent writes the outcome of what BeginEvent returned seq for. It is an event of its own: nothing is changed.
	EndEvent(ctx context.Context, seq uint64, e Event) error
	// Events reads the last events, and the last refusals beside them, oldest first. Neither can crowd the other out.
	Events(context.Context, EventFilter) ([]Event, error)
}

// Certs are the issued certificates.
type Certs interface {
	// AddCert writes one that a node of this generation asked for; an empty generation is not asked about.
	// ErrSuperseded when it leads to a root that does not sign any more, ErrRevoked when the node is or has joined
	// anew.
	AddCert(ctx context.Context, c Cert, generation string) error
	// Certs reads those that the filter selects, longest valid first.
	Certs(context.Context, CertFilter) ([]Cert, error)
	// PruneCerts removes the records of certificates that ended before a moment.
	PruneCerts(ctx context.Context, before time.Time) error
	// Prune removes what ended before a moment: administrators' certificates, tokens, invitations, acceptances and
	// leases. Of events and refusals it removes those that are past a retention of their own.
	Prune(ctx context.Context, before time.Time) error
}

// ConfigAges say which object of the configuration was first.
type ConfigAges interface {
	// ConfigAges reads all, the oldest first.
	ConfigAges(context.Context) ([]ConfigAge, error)
	// KeepConfigAges makes a change and returns what is kept then of the objects that are new or known. Whoever is
	// first to write one decides: one that is kept stays as it is. One that is new is made younger than all that are
	// kept, whatever the clocks say. So whoever goes by what is returned has the same order as everybody else.
	KeepConfigAges(ctx context.Context, c AgeChange) (kept []ConfigAge, err error)
}
