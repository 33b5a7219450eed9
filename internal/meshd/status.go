package meshd

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/meshd/replicas"
	"isthmus.dev/isthmus/internal/wellknown"
	"isthmus.dev/isthmus/internal/xds"
)

// status returns what this control plane tells the others of the mesh.
func (d *Daemon) status() replicas.Status {
	s := replicas.Status{Roots: map[string]string{}}
	mesh := d.mesh()
	if mesh == nil {
		return s
	}
	for _, td := range slices.Sorted(maps.Keys(mesh.Roots)) {
		s.Roots[td] = digest(mesh.Roots[td])
		if d.lacking(td) {
			s.Lacking = append(s.Lacking, td)
		}
	}
	if d.authority.Rotation().InProgress() {
		s.Holders = d.ownHolders()
	}
	if d.leads() {
		s.Peers = d.federation.Healths()
	}
	return s
}

// leads reports whether this control plane is the leader.
func (d *Daemon) leads() bool {
	_, leads := d.replicas.Leads()
	return leads
}

// leadersHealth returns the state of the exchange with a peer as reported by the leader.
func (d *Daemon) leadersHealth(peer string) (federation.Health, bool) {
	leader, known := d.replicas.Leader()
	h, has := leader.Peers[peer]
	return h, known && has
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// ownHolders returns the proxies that should have this mesh's own roots.
func (d *Daemon) ownHolders() []xds.Holder { return d.holders(d.authority.TrustDomain().Name()) }

func (d *Daemon) holders(trustDomain string) []xds.Holder {
	return d.xds.Holders(envoy.SecretType, wellknown.BundleSecretPrefix+trustDomain)
}

// lacking reports whether a connected proxy has not acknowledged a trust domain's roots.
func (d *Daemon) lacking(trustDomain string) bool {
	return slices.ContainsFunc(d.holders(trustDomain), func(h xds.Holder) bool { return h.Connected && !h.Acked })
}

// inForce reports whether all connected proxies, of all control planes, have a peer's roots from the latest snapshot.
func (d *Daemon) inForce(trustDomain string) bool {
	if !d.loop.Published().HasRoots(trustDomain, d.store.Snapshot()) || d.lacking(trustDomain) {
		return false
	}
	roots := digest(d.mesh().Roots[trustDomain])
	for _, other := range d.replicas.Others() {
		if other.Roots[trustDomain] != roots || slices.Contains(other.Lacking, trustDomain) {
			return false
		}
	}
	return true
}

// unpublished returns the other control planes that have not published these roots of the mesh.
func (d *Daemon) unpublished(roots []byte) (names []string) {
	td, want := d.authority.TrustDomain().Name(), digest(roots)
	for name, other := range d.replicas.Others() {
		if other.Roots[td] != want {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// replicasChanged is called when this control plane has become the leader or stopped being it.
func (d *Daemon) replicasChanged() {
	if d.federation != nil {
		d.federation.Wake()
	}
}
