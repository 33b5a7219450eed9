package federation

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Store stores invitations, acceptances in progress and counters.
type Store interface {
	peerStore
	AddInvite(ctx context.Context, i state.Invite) error
	UseInvite(ctx context.Context, id string, hash [sha256.Size]byte, by string, now time.Time) (state.Invite, error)
	CancelInvites(ctx context.Context, peer string) error
	PutBootstrap(ctx context.Context, b snapshot.Bootstrap, expires time.Time) error
	DeleteBootstrap(ctx context.Context, id string) error
	NextSequence(ctx context.Context, name, of string, now time.Time) (uint64, error)
	Record(ctx context.Context, e state.Event) error
}

// Config of a Service. Fields without a default are required.
type Config struct {
	TrustDomain spiffe.TrustDomain
	// Name that this mesh proposes for itself in invitations; a DNS label.
	Name string
	// Snapshot returns the newest snapshot. The first certificate of its Roots is the signing root.
	Snapshot func() *snapshot.Snapshot
	Store    Store
	// Gateways returns this mesh's gateways in a stable order.
	Gateways func() []Gateway
	// FromGateway returns an error if a connection to the peering port is not from a gateway that this mesh trusts now.
	// It supplements the check of its name and certificate.
	FromGateway func(context.Context, door.Caller) error
	// Door admits requests by Methods.
	Door *door.Door
	// Identity returns the certificate of this control plane, including the root, by which peers' control planes
	// identify it.
	Identity func() (*tls.Certificate, error)
	// Block refuses everything from a peer at once, independent of the store. Unblock undoes it. Stored says that the
	// store knows by now: its next read decides, since another control plane may end what this one has begun.
	Block   func(peer string, revoked bool)
	Unblock func(peer string)
	Stored  func(peer string)
	// Changed is called when time alone changes the meaning of a snapshot (an invitation expires, a peer becomes
	// stale). Changes of the store are watched elsewhere. It must not block.
	Changed func()
	// InForce reports whether all connected proxies of this mesh have the roots of a peer's trust domain from the
	// newest snapshot.
	InForce func(trustDomain string) bool
	// Export reports whether a name is exported to a peer and whether its service has a ready endpoint.
	Export func(peer, sni string) (exported, ready bool)
	// InEffect reduces the services written as offered to a peer to those that it could call.
	InEffect func(peer string, written []snapshot.OfferedService) []snapshot.OfferedService
	// Unready returns the services offered to a peer that have no ready endpoint, sorted.
	Unready func(peer string) []snapshot.OfferedName
	// Leading reports whether this control plane is the one that fetches peers' bundles and sends them the catalogue
	// and readiness, and returns the store for the results. All control planes answer peers. Call Wake when it changes.
	Leading func() (Store, bool)
	// LeadersHealth returns the state of the exchange with a peer as reported by the leading control plane.
	LeadersHealth func(peer string) (Health, bool)
	Log           *slog.Logger
	// Now returns the time. Default time.Now.
	Now func() time.Time
	// RefreshHint is the interval at which peers should fetch our bundle. Default 5 min.
	RefreshHint time.Duration
	// MinRefresh and MaxRefresh limit the peers' refresh hints. A peer that does not answer is retried within
	// MaxRefresh. Default 5 s and 15 s.
	MinRefresh, MaxRefresh time.Duration
	// AcceptTimeout limits one acceptance. Default 20 s.
	AcceptTimeout time.Duration
	// ReadTimeout limits the time for a request to the peering server to arrive. Default 10 s.
	ReadTimeout time.Duration
}

// missing returns the name of a required field that is not set; empty if all are.
func (c Config) missing() string {
	for _, f := range []struct {
		name  string
		isSet bool
	}{
		{"TrustDomain", !c.TrustDomain.IsZero()},
		{"Snapshot", c.Snapshot != nil},
		{"Store", c.Store != nil},
		{"Gateways", c.Gateways != nil},
		{"FromGateway", c.FromGateway != nil},
		{"Door", c.Door != nil},
		{"Identity", c.Identity != nil},
		{"Block", c.Block != nil},
		{"Unblock", c.Unblock != nil},
		{"Stored", c.Stored != nil},
		{"Changed", c.Changed != nil},
		{"InForce", c.InForce != nil},
		{"Export", c.Export != nil},
		{"InEffect", c.InEffect != nil},
		{"Unready", c.Unready != nil},
		{"Leading", c.Leading != nil},
		{"LeadersHealth", c.LeadersHealth != nil},
		{"Log", c.Log != nil},
	} {
		if !f.isSet {
			return f.name
		}
	}
	return ""
}

func (c Config) withDefaults() (Config, error) {
	if missing := c.missing(); missing != "" {
		return c, fmt.Errorf("federation: %s is needed", missing)
	}
	if !isLabel(c.Name) {
		return c, fmt.Errorf("federation: the mesh's name %q is no DNS label", c.Name)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		value  *time.Duration
		preset time.Duration
	}{
		{&c.RefreshHint, 5 * time.Minute},
		{&c.MinRefresh, 5 * time.Second},
		{&c.MaxRefresh, 15 * time.Second},
		{&c.AcceptTimeout, 20 * time.Second},
		{&c.ReadTimeout, 10 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.preset
		}
	}
	c.MaxRefresh = max(c.MaxRefresh, c.MinRefresh)
	return c, nil
}

// Service is one control plane's part in peering.
type Service struct {
	Config
	wake   chan struct{} // capacity 1: look at the snapshot again
	memory *gatewayMemory

	// making is held while a peer is made or removed: what was checked must still hold when it is written.
	making    sync.Mutex
	unwritten map[string]closure // guarded by making: closed peers that the store does not know yet

	// hearing is held while a readiness report is handled, so that reports are stored in order.
	hearing sync.Mutex

	mu      sync.Mutex            // guards the fields below
	invites map[string]*redeeming // by id: invitations redeemed since this process started
	health  map[string]*Health    // by peer
	since   map[conditionKey]conditionSince
	own     ownBundle
	limits  limits
}

// New makes a Service.
func New(c Config) (*Service, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Service{
		Config: c, wake: make(chan struct{}, 1), memory: newGatewayMemory(), invites: map[string]*redeeming{},
		health: map[string]*Health{}, unwritten: map[string]closure{}, since: map[conditionKey]conditionSince{},
		limits: newLimits(),
	}
	return s, nil
}

// Wake signals that the snapshot has changed. It never blocks.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// ownBundle is the bundle last served and its number.
type ownBundle struct {
	pem      string
	sequence uint64
}

// bundle returns this mesh's own bundle. A sequence number denotes the same set of roots forever, whichever control
// plane sends it.
func (s *Service) bundle(ctx context.Context) (Bundle, error) {
	roots, err := peerrules.ParseRoots(s.Snapshot().Roots)
	if err != nil {
		return Bundle{}, fmt.Errorf("read own roots: %w", err)
	}
	set := distinct(roots)
	text := string(peerrules.EncodeRoots(set))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own.pem != text {
		sum := sha256.Sum256([]byte(text))
		digest := hex.EncodeToString(sum[:])
		sequence, err := s.Store.NextSequence(ctx, "bundle", digest, s.Now())
		if err != nil {
			return Bundle{}, fmt.Errorf("number own bundle: %w", err)
		}
		s.own = ownBundle{text, sequence}
	}
	return Bundle{TrustDomain: s.TrustDomain, Roots: set, Sequence: s.own.sequence, RefreshHint: s.RefreshHint}, nil
}

// describeSelf returns this mesh's introduction: the signing root first, the bundle without a number.
func (s *Service) describeSelf() (introduction, error) {
	roots, err := peerrules.ParseRoots(s.Snapshot().Roots)
	if err != nil {
		return introduction{}, fmt.Errorf("read own roots: %w", err)
	}
	addrs, ids, err := s.gateways()
	if err != nil {
		return introduction{}, err
	}
	return introduction{
		TrustDomain: s.TrustDomain, Bundle: Bundle{TrustDomain: s.TrustDomain, Roots: roots}, Addresses: addrs,
		GatewayIDs: ids,
	}, nil
}

// Fingerprint returns the fingerprint by which peers know this mesh (peerrules.MeshFingerprint).
func (s *Service) Fingerprint() (string, error) {
	own, err := s.describeSelf()
	if err != nil {
		return "", err
	}
	return own.fingerprint(), nil
}

// introductionTo returns our introduction to a peer that we call knownAs.
func (s *Service) introductionTo(ctx context.Context, knownAs string) (self, error) {
	b, err := s.bundle(ctx)
	if err != nil {
		return self{}, err
	}
	doc, err := b.Encode()
	if err != nil {
		return self{}, fmt.Errorf("write own bundle: %w", err)
	}
	addrs, ids, err := s.gateways()
	if err != nil {
		return self{}, err
	}
	return self{TrustDomain: s.TrustDomain.Name(), KnownAs: knownAs, Bundle: doc, Addresses: addrs, GatewayIDs: ids},
		nil
}

var errNoGateway = errors.New("this mesh has no gateway yet: start one with 'isthmus gateway' (a token for it: " +
	"'isthmus token create --role gateway --node NAME --identity isthmus-system/gateway'), then try again")

var errNoAddress = errors.New("this mesh's gateways do not know where to send peers' control traffic: none of their agents has " +
	"reached this control plane yet, or only by an address that is good on one link alone; look at their logs, or write the " +
	"control plane's address, as gateways reach it, into its settings (names: {ips: [ADDRESS]}), start it again, then " +
	"try again")

// reachable refuses a peering while this mesh's gateways cannot reach the control plane.
func (s *Service) reachable() error {
	if _, _, err := s.gateways(); err != nil {
		return err
	}
	snap := s.Snapshot()
	for _, g := range registeredGateways(snap) {
		if len(snap.ControlOf(g)) > 0 {
			return nil
		}
	}
	return errNoAddress
}

// gateways returns the addresses and identities of this mesh's gateways as peers see them.
func (s *Service) gateways() ([]netip.AddrPort, []string, error) {
	var addrs []netip.AddrPort
	for _, g := range registeredGateways(s.Snapshot()) {
		for _, a := range g.Gateway.Outer() {
			if a.IsValid() && !a.IsUnspecified() {
				addrs = append(addrs, netip.AddrPortFrom(a, wellknown.FederationPort))
			}
		}
	}
	ids := s.gatewayIDs()
	if len(addrs) == 0 || len(ids) == 0 {
		return nil, nil, errNoGateway
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), maxGateways)], ids[:min(len(ids), maxGateways)], nil
}

// gatewayIDs returns the SPIFFE IDs of this mesh's registered gateways, sorted.
func (s *Service) gatewayIDs() []string {
	var ids []string
	for _, g := range registeredGateways(s.Snapshot()) {
		if id, err := spiffe.Workload(s.TrustDomain, spiffe.SystemNamespace, g.Gateway.ServiceAccount); err == nil {
			ids = append(ids, id.String())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func registeredGateways(snap *snapshot.Snapshot) []snapshot.Node {
	var all []snapshot.Node
	if snap.Registry == nil {
		return nil
	}
	for _, n := range snap.Registry.Nodes {
		if n.Role == snapshot.RoleGateway && n.Gateway != nil {
			all = append(all, n)
		}
	}
	return all
}

// fromGateway refuses connections that are not from a gateway of this mesh: the client certificate, which TLS has
// verified, must be that of a registered gateway.
func (s *Service) fromGateway(ctx context.Context, from string, c tls.ConnectionState) error {
	if len(c.VerifiedChains) == 0 {
		return errors.New("no verified client certificate")
	}
	caller, err := door.Identify(address(from), c)
	if err != nil {
		return err
	}
	if !slices.Contains(s.gatewayIDs(), caller.ID.String()) {
		return fmt.Errorf("%s is no gateway of this mesh", caller.ID)
	}
	return s.FromGateway(ctx, caller)
}
