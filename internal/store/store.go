// Package store combines the configuration, registrations, peers and state into one immutable snapshot, and signals
// when there is a new one.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

// Kept is the part of the state that the store uses.
type Kept interface {
	Peers(ctx context.Context) ([]state.Peer, error)
	OpenInvites(ctx context.Context, now time.Time) ([]snapshot.Invite, error)
	Bootstraps(ctx context.Context, now time.Time) ([]snapshot.Bootstrap, error)
	Registry(ctx context.Context) (*snapshot.Registry, error)
	Registration(ctx context.Context, node string) (state.Registration, error)
	RegisterNode(ctx context.Context, r state.Registration, now time.Time) error
	Shared() bool
	VIPs(ctx context.Context) ([]vip.Row, error)
	SaveVIPs(ctx context.Context, c vip.Change) error
}

// Config of a Store.
type Config struct {
	Kept             Kept
	Roots            func() []byte // of this mesh, PEM
	PeeringAddresses []netip.AddrPort
	PeeringPort      uint16
	Now              func() time.Time
	// Ended reports whether a generation of a node was revoked, which may not be written yet.
	Ended func(generation string) bool
}

// Store holds the latest snapshot.
type Store struct {
	cfg     Config
	changed chan struct{}

	configuring sync.Mutex     // serialises writes of configurations; taken before mu
	reading     sync.Mutex     // serialises reads of peers; taken before mu
	registering [64]sync.Mutex // serialises registrations, by hash of the node; taken before mu

	mu      sync.Mutex // guards the fields below
	current *snapshot.Snapshot
	dirty   bool // current is out of date
	config  *snapshot.Config
	// expected is the latest configuration. It becomes config when it takes effect.
	expected *snapshot.Config
	// addressed means that every host of config has a virtual address or is in unaddressed because none was available.
	addressed   bool
	unaddressed []vip.Host
	registry    map[string]*registered // by node
	forgotten   map[string]uint64      // how often each node was revoked here
	claims      claims                 // of registry and of registrations in progress
	freed       bool                   // names or addresses that somebody may wait for were freed
	early       bool                   // freed here, but their owner's revocation is not written yet
	waits       uint64                 // last ticket given to a waiting node
	merged      *snapshot.Registry     // of registry; nil if it has changed
	peers       []state.Peer
	made        peerings             // of peers
	joined      joined               // config and made, as in the last snapshot
	shut        map[string]*shutPeer // overrides peers
	invites     []snapshot.Invite
	boots       []snapshot.Bootstrap
	silent      []string // gateways
	silentNodes []snapshot.SilentNode
	reports     map[string]snapshot.Report // by node
	said        []snapshot.Report          // all reports; nil if they have changed
	contained   []snapshot.Contained
	vips        *vip.Table
	addresses   map[string]netip.Addr // of config's hosts, from vips
}

// Open loads the stored data. The first snapshot has no configuration.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, changed: make(chan struct{}, 1), registry: map[string]*registered{}, claims: newClaims(),
		forgotten: map[string]uint64{},
		shut:      map[string]*shutPeer{}, reports: map[string]snapshot.Report{}, config: &snapshot.Config{},
	}
	reg, err := cfg.Kept.Registry(ctx)
	if err != nil {
		return nil, err
	}
	s.restore(reg)
	rows, err := cfg.Kept.VIPs(ctx)
	if err != nil {
		return nil, err
	}
	s.vips = vip.TableOf(rows)
	return s, s.Reload(ctx)
}

// Snapshot returns the latest snapshot. It is built on demand, so that a burst of changes costs one.
func (s *Store) Snapshot() *snapshot.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirty {
		s.current, s.dirty = s.assemble(), false
	}
	return s.current
}

// Changed receives a value when there is a snapshot that has not been read yet.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// SetConfig replaces the configuration. It takes effect even if the state cannot be written, so that a policy does not
// wait for a disk; only new hosts have no virtual address until it is called again.
func (s *Store) SetConfig(ctx context.Context, cfg *snapshot.Config) error {
	s.expect(cfg)
	return s.setConfig(ctx, cfg)
}

// saveWait is how long SetConfigSoon waits for the state.
const saveWait = 2 * time.Second

// SetConfigSoon is SetConfig, but waits at most two seconds for a slow state. The configuration then takes effect, and
// new hosts get their addresses when they are stored.
func (s *Store) SetConfigSoon(ctx context.Context, cfg *snapshot.Config) error {
	s.expect(cfg)
	_, err := state.Within(saveWait, func() (none struct{}, err error) { return none, s.setConfig(ctx, cfg) })
	if err != nil {
		s.enforce(cfg)
	}
	return err
}

// expect records the latest configuration.
func (s *Store) expect(cfg *snapshot.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected = cfg
}

// enforce puts a configuration into effect with the addresses that its hosts have.
func (s *Store) enforce(cfg *snapshot.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config != cfg {
		s.config, s.addressed, s.unaddressed, s.addresses = cfg, false, nil, s.vips.Addresses(cfg.Hosts())
		s.mark()
	}
}

func (s *Store) setConfig(ctx context.Context, cfg *snapshot.Config) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	s.mu.Lock()
	if s.expected != cfg { // a newer one has overtaken it
		s.mu.Unlock()
		return nil
	}
	vips, left, settled := s.vips, s.unaddressed, s.addressed && len(s.unaddressed) == 0 && s.config.SameHosts(cfg)
	addresses := s.addresses
	s.mu.Unlock()
	var err error
	if !settled { // without mu: look-ups and snapshots need not wait for the choice or the disk
		hosts := cfg.Hosts()
		vips, left, err = s.address(ctx, vips, hosts)
		if next := vips.Addresses(hosts); !maps.Equal(addresses, next) {
			addresses = next
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vips = vips
	if s.expected == cfg {
		s.config, s.addressed, s.unaddressed, s.addresses = cfg, err == nil, left, addresses
		s.mark()
	}
	return err
}

// ReloadAddresses loads virtual addresses that another control plane has assigned.
func (s *Store) ReloadAddresses(ctx context.Context) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	rows, err := s.cfg.Kept.VIPs(ctx)
	if err != nil {
		return err
	}
	vips := vip.TableOf(rows)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.addresses
	s.vips = vips
	if next := vips.Addresses(s.config.Hosts()); !maps.Equal(before, next) {
		s.addresses, s.addressed = next, s.addressed && len(next) >= len(before)
		s.mark()
	}
	return nil
}

// Reload loads peers, invitations and acceptances again after a change or the passing of time.
func (s *Store) Reload(ctx context.Context) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	now, stored := s.cfg.Now(), s.storedShut()
	peers, err := s.cfg.Kept.Peers(ctx)
	if err != nil {
		return err
	}
	invites, err := s.cfg.Kept.OpenInvites(ctx, now)
	if err != nil {
		return err
	}
	boots, err := s.cfg.Kept.Bootstraps(ctx, now)
	if err != nil {
		return err
	}
	s.mu.Lock() // only now: snapshots must not wait for an unavailable database
	defer s.mu.Unlock()
	for i := range peers {
		peers[i].State = keepPointers(s.peers, peers[i])
	}
	s.peers, s.made, s.invites, s.boots = peers, peeringsOf(peers), invites, boots
	maps.DeleteFunc(s.shut, func(name string, p *shutPeer) bool { return stored[name] == p })
	s.mark()
	return nil
}

// ReloadRoots makes the next snapshot contain the current roots of the mesh.
func (s *Store) ReloadRoots() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || !bytes.Equal(s.current.Roots, s.cfg.Roots()) {
		s.mark()
	}
}

// keepPointers returns a peer's state with the previous catalogue and readiness if they are equal, so that snapshots
// compare cheaply.
func keepPointers(before []state.Peer, p state.Peer) snapshot.PeerState {
	i := slices.IndexFunc(before, func(b state.Peer) bool { return b.Name == p.Name })
	if i < 0 {
		return p.State
	}
	if old := before[i].State; reflect.DeepEqual(old.Catalogue, p.State.Catalogue) {
		p.State.Catalogue = old.Catalogue
	}
	if old := before[i].State; reflect.DeepEqual(old.Readiness, p.State.Readiness) {
		p.State.Readiness = old.Readiness
	}
	return p.State
}

// shutPeer is a peer that is suspended or revoked whatever is stored.
type shutPeer struct {
	revoked bool
	stored  bool // by now, so that the next read of peers decides
}

// Shut treats a peer as suspended or revoked from the next snapshot on, whatever is stored, until ShutStored or Reopen.
func (s *Store) Shut(peer string, revoked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.shut[peer]
	s.shut[peer] = &shutPeer{revoked: revoked || was != nil && was.revoked}
	s.mark()
}

// ShutStored records that the effect of Shut is stored. Then another control plane may end it.
func (s *Store) ShutStored(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.shut[peer]; p != nil {
		p.stored = true
	}
}

// storedShut returns the peers whose Shut is stored.
func (s *Store) storedShut() map[string]*shutPeer {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.shut)
	maps.DeleteFunc(out, func(_ string, p *shutPeer) bool { return !p.stored })
	return out
}

// Reopen undoes Shut.
func (s *Store) Reopen(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shut, peer)
	s.mark()
}

// peersNow returns the stored peers with Shut applied. The caller holds mu.
func (s *Store) peersNow() []state.Peer {
	out := slices.Clone(s.peers)
	for _, name := range slices.Sorted(maps.Keys(s.shut)) {
		i := slices.IndexFunc(out, func(p state.Peer) bool { return p.Name == name })
		if i < 0 {
			i, out = len(out), append(out, state.Peer{Name: name})
		}
		out[i].State.Suspended = true
		if s.shut[name].revoked && out[i].Revoked.IsZero() {
			out[i].Revoked = s.cfg.Now()
		}
	}
	return out
}

// SetSilentGateways replaces the list of silent gateways, sorted by name.
func (s *Store) SetSilentGateways(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.silent, names) {
		s.silent = names
		s.mark()
	}
}

// SetSilentNodes replaces the list of silent nodes, sorted by name.
func (s *Store) SetSilentNodes(nodes []snapshot.SilentNode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.silentNodes, nodes) {
		s.silentNodes = nodes
		s.mark()
	}
}

// Nodes returns the names of registered nodes, without gateways, sorted.
func (s *Store) Nodes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name, r := range s.registry {
		if r.node.Role == snapshot.RoleNode {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// mark invalidates the last snapshot. The caller holds mu.
func (s *Store) mark() {
	s.dirty = true
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// assemble builds a snapshot. The caller holds mu.
func (s *Store) assemble() *snapshot.Snapshot {
	if s.merged == nil {
		s.merged = s.merge()
	}
	peers := s.peersNow()
	s.joined = s.join(s.joined, s.config, peers)
	snap := &snapshot.Snapshot{
		Time: s.cfg.Now(), Config: s.joined.config, Registry: s.merged,
		Peers:   map[string]snapshot.PeerState{},
		Invites: s.invites, Bootstraps: s.boots, PeeringAddresses: s.cfg.PeeringAddresses,
		PeeringPort:    s.cfg.PeeringPort,
		SilentGateways: s.silent, SilentNodes: s.silentNodes, Reports: s.reported(),
		Contained: s.contained, Roots: s.cfg.Roots(), VIPs: s.addresses,
	}
	for _, p := range peers {
		p.State.Revoked = !p.Revoked.IsZero()
		snap.Peers[p.Name] = p.State
	}
	return snap
}

// address assigns virtual addresses to new hosts and marks removed hosts. If another control plane was faster, it
// chooses again from what is left.
func (s *Store) address(ctx context.Context, vips *vip.Table, hosts []vip.Host) (*vip.Table, []vip.Host, error) {
	for {
		chosen, left := vips.Choose(hosts, s.cfg.Now())
		if chosen.Empty() {
			return vips, left, nil
		}
		err := s.cfg.Kept.SaveVIPs(ctx, chosen)
		if err == nil {
			return vips.With(chosen), left, nil
		}
		if !errors.Is(err, state.ErrExists) || !s.cfg.Kept.Shared() {
			return vips, nil, fmt.Errorf("give virtual addresses: %w", err)
		}
		rows, err := s.cfg.Kept.VIPs(ctx)
		if err != nil {
			return vips, nil, fmt.Errorf("give virtual addresses: %w", err)
		}
		vips = vip.TableOf(rows)
	}
}

// withoutAddress returns findings about namespaces whose hosts got no address.
func withoutAddress(left []vip.Host) []finding.Finding {
	names := map[string][]string{}
	for _, h := range left {
		names[h.Namespace] = append(names[h.Namespace], h.Name)
	}
	var out []finding.Finding
	for _, ns := range slices.Sorted(maps.Keys(names)) {
		out = append(out, finding.New("ISM0290", snapshot.KeyFor[*corev1.Namespace]("", ns), "",
			fmt.Sprintf("%d of its names, %s first, have no virtual address, so nobody can call them: a "+
				"namespace has at most %d",
				len(names[ns]), names[ns][0], vip.PerNamespace)))
	}
	return out
}
