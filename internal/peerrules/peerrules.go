// Package peerrules says whether this mesh and a peer may talk at this moment, by which roots, and what this mesh
// offers whom. It is pure: a snapshot and its time decide. Whatever is doubtful refuses.
//
// A peer is live when all of this holds: its trust domain is its own alone (not ours, not another MeshPeer's); it is
// neither revoked nor suspended, by command or in its MeshPeer; its MeshPeer has not expired; its roots are known, at
// least one of them is valid now, none of them is a root of ours or of another peer (a key must not vouch for two trust
// domains); and they were confirmed within maxBundleAge.
//
// A peer that is merely stale or suspended keeps its control traffic: a stale one could else never come back without an
// administrator, and one whose roots change while it is suspended could not be resumed. What it may say then is bounded
// where it is heard (federation). Of two MeshPeers that share a trust domain or a root the older one stands
// (snapshot.Config.Older); where nobody knows which that is, neither does.
//
// Age is counted from PeerState.BundleTime. A MeshPeer with refresh: false takes its roots from the file alone, so that
// age limits it only where maxBundleAge is written out.
package peerrules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// What may be said of how old a peer's roots may grow.
const (
	LeastBundleAge = time.Second
	MostBundleAge  = 365 * 24 * time.Hour
)

// DefaultMaxBundleAge is how old a peer's roots may grow unless its MeshPeer says otherwise.
const DefaultMaxBundleAge = 24 * time.Hour

// Reason says in one word why a peer is not live.
type Reason string

// The reasons, in the order in which they are looked for.
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
	SharedRoot      Reason = "SharedRoot"      // a root vouches for another trust domain too
	Stale           Reason = "Stale"           // maxBundleAge has passed without a refresh
)

// Verdict is whether anything may pass between this mesh and one peer.
type Verdict struct {
	// Live: exports and imports may work.
	Live bool
	// Control: the two control planes may talk ("control.…" names). True for a live peer, and for one that is only
	// stale or suspended: newer roots can come no other way.
	Control bool
	// Reason and Message say why not live; both are empty when live. The message says what to do.
	Reason  Reason
	Message string
	// Roots to trust for the peer's trust domain, PEM; nil unless Control.
	Roots []byte
	// Until is when time alone changes the verdict; zero means never.
	Until time.Time
}

// Judge looks at one peer alone. What it shares with others is seen by All only.
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
			stamp(peer.Spec.ExpiresAt.Time))
	}
	roots, v := usableRoots(now, peer, state)
	if v.Reason != "" {
		return v
	}
	return judgeAge(now, peer, state, roots)
}

// suspended refuses all but what control planes say, while that can be trusted: roots that change meanwhile are
// followed, so that the peer is still known when it is resumed.
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
		return rootSet{}, refuse(BadRoots, "the roots of peer %s cannot be used: %v: mend spec.bundle.inline", name,
			err)
	}
	set := rootSet{pem: text, notAfter: lastValid(certs, now)}
	if set.notAfter.IsZero() {
		return rootSet{}, refuse(RootsExpired,
			"no root of peer %s is valid at %s: ask its administrators for the new root, "+
				"put it into spec.bundle.inline or peer anew", name, stamp(now))
	}
	return set, Verdict{}
}

type rootSet struct {
	pem      []byte
	notAfter time.Time // of the longest-lived root that is valid now
}

func judgeAge(now time.Time, peer *v1alpha1.MeshPeer, state snapshot.PeerState, roots rootSet) Verdict {
	until := roots.notAfter
	if limit, bounded := MaxBundleAge(peer); bounded && !state.BundleTime.IsZero() {
		stale := state.BundleTime.Add(limit)
		if !now.Before(stale) {
			v := refuse(Stale,
				"the roots of peer %s were last confirmed at %s, more than %s ago: see 'isthmus peer status %s' "+
					"for why the refresh fails", peer.Name, stamp(state.BundleTime), limit, peer.Name)
			v.Control, v.Roots = true, roots.pem
			return v
		}
		until = sooner(until, stale)
	}
	if peer.Spec.ExpiresAt != nil {
		until = sooner(until, peer.Spec.ExpiresAt.Time)
	}
	return Verdict{Live: true, Control: true, Roots: roots.pem, Until: until}
}

// Roots that a peer's trust stands on: those learned, while the first trust that they grew from still stands in the
// MeshPeer, else those written there. They are not judged here.
func Roots(peer *v1alpha1.MeshPeer, state snapshot.PeerState) []byte {
	if _, roots, ok := learned(state.Roots); ok && Adopted(peer, state) {
		return roots
	}
	return []byte(strings.TrimSpace(peer.Spec.Bundle.Inline))
}

// Refreshes says whether newer roots are asked for at the peer's bundle endpoint.
func Refreshes(peer *v1alpha1.MeshPeer) bool {
	return peer.Spec.Bundle.Refresh == nil || *peer.Spec.Bundle.Refresh
}

// MaxBundleAge of a peer; bounded is false where age does not count.
func MaxBundleAge(peer *v1alpha1.MeshPeer) (limit time.Duration, bounded bool) {
	if d := peer.Spec.MaxBundleAge; d != nil {
		return d.Duration, true
	}
	return DefaultMaxBundleAge, Refreshes(peer)
}

// All judges every MeshPeer of a snapshot, by name, and sees what two of them must not share: the older one has it.
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

// claims are which peers want each trust domain and each root key, the oldest first. Revoked peers want nothing; who
// does not hold its trust domain wants no roots.
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

func keyOf(peer string) snapshot.Key { return snapshot.Key{Kind: "MeshPeer", Name: peer} }

// keyIDs of roots, each once; none of roots that cannot be read, which are judged elsewhere.
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

// holds says that of those who want something a peer has it: it is the oldest, and known to be older than the next.
func (c claims) holds(wanting []string, peer string) bool {
	return len(wanting) > 0 && wanting[0] == peer &&
		(len(wanting) == 1 || !c.cfg.SameAge(keyOf(wanting[0]), keyOf(wanting[1])))
}

// others names who else wants something, the oldest first.
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
	certs, _ := ParseRoots(v.Roots) // judged before: they can be read
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

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
