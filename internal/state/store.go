package state

import (
	"context"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/vip"
)

// Store is the contract of a database. Consumers declare the part that they use.
//
// A method that writes returns when the data is durable. A method that returns an error has written nothing, unless its
// comment says otherwise. Writes are serialised across all control planes, and each is atomic. Time is an argument.
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

	// Watch sends what this process and others write from now on, until ctx is done. Changes that are not received are
	// queued, and merged if they are equal.
	Watch(ctx context.Context) <-chan []Change
	// Place describes where the database is, without secrets.
	Place() string
	// Check verifies everything that is stored, as opening does. It returns ErrDamaged for data that is not as it was
	// written.
	Check(ctx context.Context) error
	Close() error
}

// Blobs store CA material.
type Blobs interface {
	// PutBlob replaces the blob of that name whose certificate is was; nil: there is none. It returns ErrSuperseded if
	// there is another one.
	PutBlob(ctx context.Context, b Blob, was []byte) error
	// Blob returns a blob, or ErrNotFound.
	Blob(ctx context.Context, name string) (Blob, error)
}

// Tokens let each of their nodes join once.
type Tokens interface {
	// AddToken adds a token. It returns ErrExists if the ID exists.
	AddToken(context.Context, Token) error
	// UseToken marks a token as used and returns it. Of all attempts, at any time and through any control plane,
	// exactly one succeeds. The others return ErrNotFound, ErrSecret, ErrUsed or ErrExpired, and are recorded.
	UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Token, error)
	// CancelToken cancels an unused token. It returns ErrNotFound if there is none, ErrUsed if it was used.
	CancelToken(ctx context.Context, id string, now time.Time) error
	// CancelTokensMadeBy cancels all unused tokens of a creator and returns their number. None is no error.
	CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (int64, error)
	// Tokens returns all tokens, oldest first.
	Tokens(context.Context) ([]Token, error)
	// EndExpired marks tokens and invitations that have expired, so that a clock set back does not revive them.
	EndExpired(ctx context.Context, now time.Time) error
}

// Invites let each of their peers in once.
type Invites interface {
	// AddInvite adds an invitation. It returns ErrExists if the ID exists.
	AddInvite(context.Context, Invite) error
	// UseInvite marks an invitation as used and returns it, like UseToken.
	UseInvite(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Invite, error)
	// OpenInvites returns the usable invitations, sorted by ID.
	OpenInvites(ctx context.Context, now time.Time) ([]snapshot.Invite, error)
	// CancelInvites removes a peer's unused invitations.
	CancelInvites(ctx context.Context, peer string) error
	// PutBootstrap stores an acceptance in progress until it expires.
	PutBootstrap(ctx context.Context, b snapshot.Bootstrap, expires time.Time) error
	// Bootstraps returns the acceptances in progress, sorted by ID.
	Bootstraps(ctx context.Context, now time.Time) ([]snapshot.Bootstrap, error)
	// DeleteBootstrap removes one, if it exists.
	DeleteBootstrap(ctx context.Context, id string) error
}

// NodeStore stores attested agents and their registrations.
type NodeStore interface {
	// AttestNode stores a node that has joined with a token: a new one, or a known one again. Joining again starts a
	// new generation and ends a revocation. The token must have been created after the revocation; otherwise it returns
	// ErrRevoked.
	AttestNode(context.Context, Node) error
	// Node returns a node, or ErrNotFound.
	Node(ctx context.Context, name string) (Node, error)
	// NodeOf returns the node with this generation, or ErrNotFound if no node has it (any more).
	NodeOf(ctx context.Context, generation string) (Node, error)
	// Nodes returns all nodes, including revoked ones, sorted by name.
	Nodes(context.Context) ([]Node, error)
	// BeginConversation numbers a new session with a node's agent; numbers grow. It returns ErrNotFound if the node is
	// revoked or does not have this generation (any more). Joining again ends earlier sessions.
	BeginConversation(ctx context.Context, node, generation string) (uint64, error)
	// RegisterNode replaces a node's registration: its gateway part and all its workloads. It returns ErrRevoked if the
	// node is revoked or was never attested, ErrSuperseded if it has reported in a later session, and ErrExists if
	// another node has the name or an address of one of the workloads.
	RegisterNode(ctx context.Context, r Registration, now time.Time) error
	// Registration returns a node's last report, or ErrNotFound if it is revoked or was never attested.
	Registration(ctx context.Context, node string) (Registration, error)
	// RevokeNode revokes a node. Its workloads are removed, and so are all tokens made for it, including one that is
	// just being used.
	RevokeNode(ctx context.Context, name string, now time.Time) error
	// Registry returns the nodes that are not revoked, and all workloads.
	Registry(context.Context) (*snapshot.Registry, error)
}

// AgentStore stores the sessions that agents have with any control plane.
type AgentStore interface {
	// PutAgent stores a session in place of an earlier one. It returns ErrSuperseded if there is a later one.
	PutAgent(context.Context, Agent) error
	// EndAgent removes a session, unless a later one has replaced it.
	EndAgent(ctx context.Context, node string, conversation uint64) error
	// Agent returns a node's session, or ErrNotFound.
	Agent(ctx context.Context, node string) (Agent, error)
	// Agents returns all sessions, sorted by node.
	Agents(context.Context) ([]Agent, error)
}

// Leases assign tasks that only one control plane may do. They expire by the database's clock.
type Leases interface {
	// Acquire takes or renews a lease for ttl and sets its data. It returns ErrExists while another holder has it.
	Acquire(ctx context.Context, name, holder string, data []byte, ttl time.Duration) (Lease, error)
	// Release ends a lease, if it is still held.
	Release(ctx context.Context, l Lease) error
	// Leases returns the leases that are held now whose names start with a prefix, sorted by name.
	Leases(ctx context.Context, prefix string) ([]Lease, error)
	// Under returns a store that writes only while the lease is held, and otherwise returns ErrSuperseded.
	Under(l Lease) Store
	// Shared reports whether other control planes may use the same database.
	Shared() bool
}

// VIPs store virtual addresses.
type VIPs interface {
	// SaveVIPs stores a choice of virtual addresses. It returns ErrExists if another control plane has assigned an
	// address or a host meanwhile. After an error, part of it may be stored; the same choice can be saved again.
	SaveVIPs(ctx context.Context, c vip.Change) error
	// VIPs returns everything that is stored.
	VIPs(ctx context.Context) ([]vip.Row, error)
}

// PeerStore stores peer meshes.
type PeerStore interface {
	// EstablishPeer stores a peering made by token: the object and the first roots. It replaces everything known under
	// that name, including a suspension or revocation, since both sides have consented anew.
	EstablishPeer(ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time) error
	// Peers returns all peers, including revoked ones, sorted by name.
	Peers(context.Context) ([]Peer, error)
	// SetPeerBundle stores roots (PEM) with the time of their confirmation, in place of those with the sequence held.
	// It returns ErrSuperseded if the peer is revoked or has others.
	SetPeerBundle(ctx context.Context, name string, roots []byte, sequence, held uint64, now time.Time) error
	// AdoptPeerRoots stores the first roots (PEM) of a peer that is defined in a file. It replaces everything that grew
	// from others. A suspension stays. It returns ErrRevoked if the peer is revoked.
	AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error
	// SetPeerCatalogue stores a peer's catalogue in place of the one with the sequence held (0: none). It returns
	// ErrRevoked if the peer is revoked, ErrSuperseded if there is another one.
	SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue, held uint64) error
	// SetPeerReadiness stores a peer's readiness report, like SetPeerCatalogue.
	SetPeerReadiness(ctx context.Context, name string, r snapshot.Readiness, held uint64) error
	// SetPeerObject replaces the object of a peering made by token and keeps its age. It returns ErrRevoked if there is
	// none (any more).
	SetPeerObject(ctx context.Context, object *v1alpha1.MeshPeer) error
	// SetPeerSuspended suspends or resumes a peer.
	SetPeerSuspended(ctx context.Context, name string, suspended bool) error
	// RevokePeer ends a peering for good. It removes roots, catalogue and open invitations, and leaves a mark that no
	// refresh can undo.
	RevokePeer(ctx context.Context, name string, now time.Time) error
	// NextSequence returns a number that grows with every call for a name, and with time: microseconds since 1970. If
	// of is not empty, repeated calls with the same of return the same number.
	NextSequence(ctx context.Context, name, of string, now time.Time) (uint64, error)
}

// AdminStore stores administrator certificates.
type AdminStore interface {
	// AddAdmin adds a certificate.
	AddAdmin(context.Context, Admin) error
	// Admin returns the certificate with a generation, or ErrNotFound.
	Admin(ctx context.Context, generation string) (Admin, error)
	// Admins returns all certificates, sorted by name and age.
	Admins(context.Context) ([]Admin, error)
	// RevokeAdmins revokes unexpired certificates: those of a name, or the one with a generation.
	RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error
}

// Quarantines store the objects that proxies rejected.
type Quarantines interface {
	// Quarantines returns all, sorted by proxy and object.
	Quarantines(context.Context) ([]Quarantine, error)
	// ChangeQuarantines adds some and ends others.
	ChangeQuarantines(ctx context.Context, add, end []Quarantine) error
}

// Rotations store the progress of root rotations.
type Rotations interface {
	// Rotation returns the rotation in progress or the last one; ErrNotFound if there was none.
	Rotation(context.Context) (Rotation, error)
	// PutRotation stores a step that follows from (empty: no rotation), together with the CA material that it adds and
	// removes. It returns ErrSuperseded if the rotation is at another step.
	PutRotation(ctx context.Context, from string, r Rotation, put []Blob, remove []string) error
	// CertsUnder returns the certificates that are still valid at a time and chain to a root, except revoked
	// administrator certificates.
	CertsUnder(ctx context.Context, root string, now time.Time) ([]CertUse, error)
}

// Events store who did what.
type Events interface {
	// Record stores an event. Refusals are folded: equal ones are counted.
	Record(context.Context, Event) error
	// BeginEvent records that an action is about to happen.
	BeginEvent(context.Context, Event) (seq uint64, err error)
	// EndEvent records the outcome of the event seq from BeginEvent, as an event of its own: nothing is modified.
	EndEvent(ctx context.Context, seq uint64, e Event) error
	// Events returns the latest events and the latest refusals, oldest first. Neither can crowd out the other.
	Events(context.Context, EventFilter) ([]Event, error)
}

// Certs store issued certificates.
type Certs interface {
	// AddCert stores a certificate requested by a node with this generation; an empty generation is not checked. It
	// returns ErrSuperseded if its root no longer signs, and ErrRevoked if the node is revoked or has joined again.
	AddCert(ctx context.Context, c Cert, generation string) error
	// Certs returns the selected certificates, longest validity first.
	Certs(context.Context, CertFilter) ([]Cert, error)
	// PruneCerts removes the records of certificates that expired before a time.
	PruneCerts(ctx context.Context, before time.Time) error
	// Prune removes what ended before a time: administrator certificates, tokens, invitations, acceptances and leases.
	// Events and refusals have retention periods of their own.
	Prune(ctx context.Context, before time.Time) error
}

// ConfigAges store which configuration object was first.
type ConfigAges interface {
	// ConfigAges returns all, oldest first.
	ConfigAges(context.Context) ([]ConfigAge, error)
	// KeepConfigAges stores a change and returns the stored ages of the new and known objects. The first writer
	// decides: a stored age stays. A new object is made younger than all stored ones, whatever the clocks say. So all
	// callers that use the returned ages have the same order.
	KeepConfigAges(ctx context.Context, c AgeChange) (kept []ConfigAge, err error)
}
