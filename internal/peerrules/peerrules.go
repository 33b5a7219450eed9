// Package peerrules decides whether this mesh and a peer may talk now, which roots to trust for the peer, and what this
// mesh offers it. It is pure: the snapshot and its time decide. Anything doubtful is refused.
//
// A peer is live when all of these hold:
//   - Its trust domain is neither ours nor another MeshPeer's.
//   - It is neither revoked nor suspended, by command or in its MeshPeer, and its MeshPeer has not expired.
//   - Its roots are known, and at least one is valid now.
//   - None of its roots is a root of ours or of another peer: a key must not vouch for two trust domains.
//   - Its roots were confirmed within maxBundleAge.
//
// A peer that is only stale or suspended keeps its control traffic. Otherwise a stale peer could not come back without
// an administrator, and one whose roots rotate during a suspension could not be resumed. The federation package limits
// what such a peer may say. Of two MeshPeers that share a trust domain or a root, the older one counts
// (snapshot.Config.Older). If the older one is unknown, neither counts.
//
// Age is counted from PeerState.BundleTime. For a MeshPeer with refresh: false, whose roots come from the file alone,
// age counts only if maxBundleAge is set.
package peerrules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/times"
)

// Limits of spec.maxBundleAge.
const (
	LeastBundleAge = time.Second
	MostBundleAge  = 365 * 24 * time.Hour
)

// DefaultMaxBundleAge applies when a MeshPeer sets none.
const DefaultMaxBundleAge = 24 * time.Hour

// Reason is a one-word reason why a peer is not live.
type Reason string

// The reasons, in the order of their checks.
const (
	Unknown         Reason = "Unknown"         // no such MeshPeer
	Revoked         Reason = "Revoked"         // by command
	OwnTrustDomain  Reason = "OwnTrustDomain"  // it claims our trust domain
	SameTrustDomain Reason = "SameTrustDomain" // an older MeshPeer has that trust domain
	Suspended       Reason = "Suspended"       // by command or in the MeshPeer
	Expired         Reason = "Expired"         // spec.expiresAt has passed
	NoRoots         Reason = "NoRoots"         // nothing to trust yet
	BadRoots        Reason = "BadRoots"        // unreadable, or no certificate authorities
	RootsExpired    Reason = "RootsExpired"    // no root is valid now
	SharedRoot      Reason = "SharedRoot"      // a root is also a root of another trust domain
	Stale           Reason = "Stale"           // maxBundleAge has passed without a refresh
)

// Verdict says what may pass between this mesh and one peer.
type Verdict struct {
	// Live means that exports and imports work.
	Live bool
	// Control means that the two control planes may talk ("control.…" server names). It holds for live peers and for
	// those that are only stale or suspended, since newer roots can come no other way.
	Control bool
	// Reason and Message say why the peer is not live, and the message what to do. Both are empty if it is live.
	Reason  Reason
	Message string
	// Roots are the PEM roots to trust for the peer's trust domain; nil unless Control.
	Roots []byte
	// Until is when the verdict changes with time alone; zero means never.
	Until time.Time
}

// Judge looks at one peer alone. Only All sees conflicts between peers.
func Judge(now time.Time, peer *v1alpha1.MeshPeer, state snapshot.PeerState) Verdict {
	if peer == nil {
		return refuse(Unknown, "no MeshPeer of that name: write one, or run 'isthmus peer accept'")
	}
	name := peer.Name
	switch {
	case state.Revoked:
		return refuse(Revoked,
			"peer %s was revoked: take its MeshPeer out of the files, if it stands in one, then peer anew "+
				"with 'isthmus peer invite %s' or 'isthmus peer accept'", name, name)
	case peer.Spec.Suspend:
		return suspended(now, peer, state, "peer %s is suspended by its MeshPeer: remove spec.suspend to resume", name)
	case state.Suspended:
		return suspended(now, peer, state, "peer %s is suspended by command: 'isthmus peer resume %s' ends it", name,
			name)
	case peer.Spec.ExpiresAt != nil && !now.Before(peer.Spec.ExpiresAt.Time):
		return refuse(Expired, "the peering with %s ended at %s: set a later spec.expiresAt to go on", name,
			formatTime(peer.Spec.ExpiresAt.Time))
	}
	roots, v := usableRoots(now, peer, state)
	if v.Reason != "" {
		return v
	}
	return judgeAge(now, peer, state, roots)
}

// suspended refuses everything but control traffic, as long as that can be authenticated. Root rotations are followed
// meanwhile, so that the peer can be resumed.
func suspended(now time.Time, peer *v1alpha1.MeshPeer, state snapshot.PeerState, format string, args ...any) Verdict {
	v := refuse(Suspended, format, args...)
	if e := peer.Spec.ExpiresAt; e != nil {
		if !now.Before(e.Time) {
			return v
		}
		v.Until = e.Time
	}
	if roots, _ := usableRoots(now, peer, state); roots.pem != nil {
		v.Control, v.Roots = true, roots.pem
		if v.Until.IsZero() || roots.notAfter.Before(v.Until) {
			v.Until = roots.notAfter
		}
	}
	return v
}

func usableRoots(now time.Time, peer *v1alpha1.MeshPeer, state snapshot.PeerState) (rootSet, Verdict) {
	name := peer.Name
	text := Roots(peer, state)
	if len(text) == 0 {
		return rootSet{}, refuse(NoRoots,
			"no roots of peer %s are known yet: give spec.bundle.inline, or wait until the root of "+
				"spec.bundle.fingerprint has been fetched ('isthmus peer status %s' says how far it is)", name, name)
	}
	certs, err := ParseRoots(text)
	if err != nil {
		return rootSet{}, refuse(BadRoots, "the roots of peer %s cannot be used: %v: correct spec.bundle.inline", name,
			err)
	}
	set := rootSet{pem: text, notAfter: lastValid(certs, now)}
	if set.notAfter.IsZero() {
		return rootSet{}, refuse(RootsExpired,
			"no root of peer %s is valid at %s: ask its administrators for the new root, "+
				"put it into spec.bundle.inline or peer anew", name, formatTime(now))
	}
	return set, Verdict{}
}

type rootSet struct {
	pem      []byte
	notAfter time.Time // of the longest-lived currently valid root
}

func judgeAge(now time.Time, peer *v1alpha1.MeshPeer, state snapshot.PeerState, roots rootSet) Verdict {
	until := roots.notAfter
	if limit, bounded := MaxBundleAge(peer); bounded && !state.BundleTime.IsZero() {
		stale := state.BundleTime.Add(limit)
		if !now.Before(stale) {
			v := refuse(Stale,
				"the roots of peer %s were last confirmed at %s, more than %s ago: see 'isthmus peer status %s' "+
					"for why the refresh fails", peer.Name, formatTime(state.BundleTime), limit, peer.Name)
			v.Control, v.Roots = true, roots.pem
			return v
		}
		until = times.Earlier(until, stale)
	}
	if peer.Spec.ExpiresAt != nil {
		until = times.Earlier(until, peer.Spec.ExpiresAt.Time)
	}
	return Verdict{Live: true, Control: true, Roots: roots.pem, Until: until}
}

// Roots returns the roots of a peer, unchecked: the learned ones while the MeshPeer still states the first trust that
// they grew from, else those in the MeshPeer.
func Roots(peer *v1alpha1.MeshPeer, state snapshot.PeerState) []byte {
	if _, roots, ok := learned(state.Roots); ok && Adopted(peer, state) {
		return roots
	}
	return []byte(strings.TrimSpace(peer.Spec.Bundle.Inline))
}

// Refreshes reports whether newer roots are fetched from the peer's bundle endpoint.
func Refreshes(peer *v1alpha1.MeshPeer) bool {
	return peer.Spec.Bundle.Refresh == nil || *peer.Spec.Bundle.Refresh
}

// MaxBundleAge returns a peer's limit. bounded is false if age does not count.
func MaxBundleAge(peer *v1alpha1.MeshPeer) (limit time.Duration, bounded bool) {
	if d := peer.Spec.MaxBundleAge; d != nil {
		return d.Duration, true
	}
	return DefaultMaxBundleAge, Refreshes(peer)
}

// All judges every MeshPeer of a snapshot, by name. What two of them must not share goes to the older one.
func All(snap *snapshot.Snapshot, trustDomain string) map[string]Verdict {
	verdicts := map[string]Verdict{}
	if snap.Config == nil {
		return verdicts
	}
	c := claimsOf(snap, trustDomain)
	for _, peer := range snapshot.Of[*v1alpha1.MeshPeer](snap.Config) {
		v := Judge(snap.Time, peer, snap.Peers[peer.Name])
		if v.Reason != Revoked {
			if clash := c.clash(peer, v); clash.Reason != "" {
				v = clash
			}
		}
		verdicts[peer.Name] = v
	}
	return verdicts
}

// claims records which peers claim each trust domain and each root key, oldest first. Revoked peers claim nothing, and
// a peer that loses its trust domain claims no roots.
type claims struct {
	cfg           *snapshot.Config
	own           string              // this mesh's trust domain
	ownKeys       map[string]bool     // of this mesh's roots
	domains, keys map[string][]string // names of peers
}

func claimsOf(snap *snapshot.Snapshot, trustDomain string) claims {
	c := claims{
		cfg: snap.Config, own: trustDomain, ownKeys: map[string]bool{}, domains: map[string][]string{},
		keys: map[string][]string{},
	}
	for _, id := range keyIDs(snap.Roots) {
		c.ownKeys[id] = true
	}
	peers := slices.DeleteFunc(slices.Clone(snapshot.Of[*v1alpha1.MeshPeer](snap.Config)),
		func(p *v1alpha1.MeshPeer) bool { return snap.Peers[p.Name].Revoked })
	slices.SortStableFunc(peers, func(a, b *v1alpha1.MeshPeer) int { return c.cfg.Older(keyOf(a.Name), keyOf(b.Name)) })
	for _, p := range peers {
		c.domains[p.Spec.TrustDomain] = append(c.domains[p.Spec.TrustDomain], p.Name)
	}
	for _, p := range peers {
		if !c.holds(c.domains[p.Spec.TrustDomain], p.Name) {
			continue
		}
		for _, id := range keyIDs(Roots(p, snap.Peers[p.Name])) {
			c.keys[id] = append(c.keys[id], p.Name)
		}
	}
	return c
}

func keyOf(peer string) snapshot.Key { return snapshot.KeyFor[*v1alpha1.MeshPeer]("", peer) }

// keyIDs returns the distinct key IDs of roots, or none if the roots cannot be parsed; those are judged elsewhere.
func keyIDs(pem []byte) []string {
	certs, err := ParseRoots(pem)
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(certs))
	for _, c := range certs {
		ids = append(ids, KeyID(c))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// holds reports whether peer comes first among the claimants and is known to be older than the next.
func (c claims) holds(wanting []string, peer string) bool {
	return len(wanting) > 0 && wanting[0] == peer &&
		(len(wanting) == 1 || !c.cfg.SameAge(keyOf(wanting[0]), keyOf(wanting[1])))
}

// others names the other claimants, oldest first.
func others(wanting []string, peer string) string {
	return "peer " + strings.Join(slices.DeleteFunc(slices.Clone(wanting), func(n string) bool { return n == peer }),
		" and peer ")
}

func (c claims) clash(peer *v1alpha1.MeshPeer, v Verdict) Verdict {
	td := peer.Spec.TrustDomain
	if td == c.own {
		return refuse(OwnTrustDomain, "peer %s claims this mesh's own trust domain %s: a peer has one of its own",
			peer.Name, c.own)
	}
	if wanting := c.domains[td]; !c.holds(wanting, peer.Name) {
		return refuse(SameTrustDomain, "trust domain %s is claimed by %s too, and the oldest MeshPeer "+
			"stands: keep one of them",
			td, others(wanting, peer.Name))
	}
	if !v.Control {
		return Verdict{}
	}
	certs, _ := ParseRoots(v.Roots) // Judge has already parsed them
	for _, r := range certs {
		id := KeyID(r)
		if c.ownKeys[id] {
			return refuse(SharedRoot, "a root of peer %s (SHA-256 %s) is one of this mesh: each trust domain "+
				"needs a root of its own",
				peer.Name, spiffe.Fingerprint(r))
		}
		if wanting := c.keys[id]; !c.holds(wanting, peer.Name) {
			return refuse(SharedRoot,
				"a root of peer %s (SHA-256 %s) vouches for %s too, and the oldest MeshPeer stands: "+
					"each trust domain needs a root of its own", peer.Name, spiffe.Fingerprint(r),
				others(wanting, peer.Name))
		}
	}
	return Verdict{}
}

func refuse(r Reason, format string, args ...any) Verdict {
	return Verdict{Reason: r, Message: fmt.Sprintf(format, args...)}
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
