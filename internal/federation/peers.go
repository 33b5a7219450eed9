package federation

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/gate"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

// peerStore stores peers.
type peerStore interface {
	Peers(ctx context.Context) ([]state.Peer, error)
	EstablishPeer(ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time) error
	SetPeerBundle(ctx context.Context, name string, roots []byte, sequence, held uint64, now time.Time) error
	AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error
	SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue, held uint64) error
	SetPeerReadiness(ctx context.Context, name string, r snapshot.Readiness, held uint64) error
	SetPeerObject(ctx context.Context, object *v1alpha1.MeshPeer) error
	SetPeerSuspended(ctx context.Context, name string, suspended bool) error
	RevokePeer(ctx context.Context, name string, now time.Time) error
}

// peer is everything known of one peer now. The snapshot may lag behind the store.
type peer struct {
	object   *v1alpha1.MeshPeer
	state    snapshot.PeerState
	fromFile bool
}

// peers merges the MeshPeers of the configuration and of the store, by name. If both exist, the configuration decides
// which one counts.
func (s *Service) peers(ctx context.Context) (map[string]peer, error) {
	kept, err := s.Store.Peers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	all := map[string]peer{}
	for _, k := range kept {
		k.State.Revoked = !k.Revoked.IsZero()
		all[k.Name] = peer{object: k.Object, state: k.State}
	}
	cfg := s.snapshotConfig()
	for _, o := range snapshot.Of[*v1alpha1.MeshPeer](cfg) {
		if cfg.Origin(snapshot.KeyOf(o)).Source == snapshot.SourceFile {
			all[o.Name] = peer{object: o, state: all[o.Name].state, fromFile: true}
		}
	}
	for name, p := range all {
		if p.object == nil {
			delete(all, name) // a revocation mark that outlived its file
		}
	}
	return all, nil
}

func (s *Service) peer(ctx context.Context, name string) (peer, error) {
	all, err := s.peers(ctx)
	if err != nil {
		return peer{}, err
	}
	p, ok := all[name]
	if !ok {
		return peer{}, fmt.Errorf("there is no peer %q: 'isthmus peer list' shows all", name)
	}
	return p, nil
}

// errClash names something that a new peer must not share with this mesh or another peer.
type errClash struct{ message string }

func (e errClash) Error() string { return e.message }

func clash(format string, args ...any) error { return errClash{fmt.Sprintf(format, args...)} }

// checkName refuses the name for a new peer if it is taken. A revoked peer made by token does not occupy its name.
func checkName(all map[string]peer, name string) error {
	p, taken := all[name]
	switch {
	case !isLabel(name):
		return clash("%q cannot name a peer: use up to 63 lower-case letters, digits and '-'", name)
	case !taken:
		return nil
	case p.state.Revoked && p.fromFile:
		return clash("peer %s was revoked and still stands in the configuration files: take its MeshPeer out first, then try again", name)
	case p.state.Revoked:
		return nil
	case p.fromFile:
		return clash("there is a MeshPeer %s in the configuration files already: choose another name, or take it out first", name)
	default:
		return clash("there is a peer %s already: choose another name, or end that peering with 'isthmus peer revoke %s' first", name, name)
	}
}

// checkNewcomer refuses a mesh that conflicts with this one or another peer.
func (s *Service) checkNewcomer(all map[string]peer, name string, in introduction) error {
	if in.TrustDomain == s.TrustDomain {
		return clash("trust domain %s is this mesh's own: two meshes need two trust domains", in.TrustDomain.Name())
	}
	for other, p := range all {
		if other != name && !p.state.Revoked && p.object.Spec.TrustDomain == in.TrustDomain.Name() {
			return clash("trust domain %s is that of peer %s already: end that peering with 'isthmus peer revoke %s' first",
				in.TrustDomain.Name(), other, other)
		}
	}
	if err := s.checkRoots(all, name, in.Bundle.Roots); err != nil {
		return err
	}
	return s.checkNotOurs(in.Addresses)
}

// checkRoots refuses roots for a peer whose keys are ours or those of a peer that is not younger.
func (s *Service) checkRoots(all map[string]peer, name string, roots []*x509.Certificate) error {
	own, err := peerrules.ParseRoots(s.Snapshot().Roots)
	if err != nil {
		return fmt.Errorf("read own roots: %w", err)
	}
	if shared := sharedKey(own, roots); shared != "" {
		return clash("its root (SHA-256 %s) is one of this mesh's own: each trust domain needs a root of its own",
			shared)
	}
	for other, p := range all {
		if other == name || p.state.Revoked || s.older(name, other) {
			continue
		}
		theirs, err := peerrules.ParseRoots(peerrules.Roots(p.object, p.state))
		if err != nil {
			continue // unusable roots vouch for nobody
		}
		if shared := sharedKey(theirs, roots); shared != "" {
			return clash("its root (SHA-256 %s) is one of peer %s: each trust domain needs a root of its own", shared,
				other)
		}
	}
	return nil
}

// older reports whether a peer is known to be older than another, so that the other's roots cannot displace it.
func (s *Service) older(name, other string) bool {
	cfg := s.snapshotConfig()
	a, b := snapshot.KeyFor[*v1alpha1.MeshPeer]("", name), snapshot.KeyFor[*v1alpha1.MeshPeer]("", other)
	return cfg.Older(a, b) < 0 && !cfg.SameAge(a, b)
}

// sharedKey returns the fingerprint of a root in b whose key also is in a.
func sharedKey(a, b []*x509.Certificate) string {
	for _, c := range b {
		if slices.ContainsFunc(a, func(o *x509.Certificate) bool { return peerrules.KeyID(o) == peerrules.KeyID(c) }) {
			return spiffe.Fingerprint(c)
		}
	}
	return ""
}

// checkNotOurs refuses gateway addresses that would make our gateway call our own workloads, nodes or control planes.
func (s *Service) checkNotOurs(addrs []netip.AddrPort) error {
	inside := map[netip.Addr]bool{}
	snap := s.Snapshot()
	for _, n := range registeredGateways(snap) {
		for _, a := range snap.ControlOf(n) {
			inside[a.Addr().Unmap()] = true
		}
		for _, a := range append(n.Gateway.Inner(), n.Gateway.Outer()...) {
			inside[a.Unmap()] = true
		}
	}
	if snap.Registry != nil {
		for _, w := range snap.Registry.Workloads {
			for _, a := range w.Addresses {
				inside[a.Unmap()] = true
			}
		}
	}
	for _, v := range snap.VIPs {
		inside[v], inside[vip.Six(v)] = true, true
	}
	for _, a := range addrs {
		if inside[a.Addr().Unmap()] {
			return clash("gateway address %s lies inside this mesh", a)
		}
	}
	return nil
}

// meshPeer returns the object that a peering by token creates.
func (i introduction) meshPeer(name string) *v1alpha1.MeshPeer {
	return &v1alpha1.MeshPeer{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "MeshPeer"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.MeshPeerSpec{
			TrustDomain: i.TrustDomain.Name(), KnownAs: i.KnownAs, GatewayAddresses: texts(i.Addresses),
			GatewayIDs: i.GatewayIDs,
			Bundle:     v1alpha1.PeerBundle{Inline: string(peerrules.EncodeRoots(distinct(i.Bundle.Roots)))},
		},
	}
}

// review passes a peer made or renewed by token to the gate.
func (s *Service) review(object *v1alpha1.MeshPeer, made time.Time, caller string) error {
	var change snapshot.Change
	change.Put(snapshot.NewObject(object, snapshot.Origin{Source: snapshot.SourceToken, FirstSeen: made}))
	v := gate.Review(s.snapshotNow(), change, gate.Who{Source: snapshot.SourceToken, Caller: caller})
	if len(v.Refused) > 0 {
		return clash("%s", v.Findings[0].Message)
	}
	return nil
}

// establish stores a new peer. The caller holds making.
func (s *Service) establish(ctx context.Context, name string, in introduction) error {
	all, err := s.peers(ctx)
	if err != nil {
		return err
	}
	if err := checkName(all, name); err != nil {
		return err
	}
	if err := s.checkNewcomer(all, name, in); err != nil {
		return err
	}
	object := in.meshPeer(name)
	now := s.Now()
	if err := s.review(object, now, actorOf(name)); err != nil {
		return err
	}
	roots := peerrules.Learned(object, distinct(in.Bundle.Roots))
	if err := s.Store.EstablishPeer(ctx, object, roots, in.Bundle.Sequence, now); err != nil {
		return fmt.Errorf("keep peer %s: %w", name, err)
	}
	delete(s.unwritten, name)
	s.Unblock(name)
	return nil
}
