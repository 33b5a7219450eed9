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

// status is what this control plane tells the others of the mesh.
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

// leads says whether this control plane is the one that does what only one may do.
func (d *Daemon) leads() bool {
	_, leads := d.replicas.Leads()
	return leads
}

// leadersHealth is how the exchange with a peer goes, by the word of the control plane that keeps up with peers.
func (d *Daemon) leadersHealth(peer string) (federation.Health, bool) {
	leader, known := d.replicas.Leader()
	h, has := leader.Peers[peer]
	return h, known && has
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// ownHolders are the proxies that should have this mesh's own roots.
func (d *Daemon) ownHolders() []xds.Holder { return d.holders(d.authority.TrustDomain().Name()) }

func (d *Daemon) holders(trustDomain string) []xds.Holder {
	return d.xds.Holders(envoy.SecretType, wellknown.BundleSecretPrefix+trustDomain)
}

// lacking says whether a proxy that is connected has not acknowledged a trust domain's roots.
func (d *Daemon) lacking(trustDomain string) bool {
	return slices.ContainsFunc(d.holders(trustDomain), func(h xds.Holder) bool { return h.Connected && !h.Acked })
}

// inForce says whether every connected proxy, of whichever control plane, has a peer's roots as they are in the newest
// snapshot.
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

// unpublished are the other control planes that have not put these roots of the mesh into force.
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

// replicasChanged is called when this control plane has come to lead, or leads no more.
func (d *Daemon) replicasChanged() {
	if d.federation != nil {
		d.federation.Wake()
	}
}
