package spine

import (
	"slices"
	"sync"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Published is what is in force: a snapshot, what it means and what is wrong with it. It does not change.
type Published struct {
	Snapshot   *snapshot.Snapshot
	Mesh       *model.Mesh
	Findings   []finding.Finding // sorted; those of a newer snapshot where that cannot be put in force
	Generation uint64            // counts what was published

	compiled *compile.Compiled // of which Mesh is

	once  sync.Once // guards what follows
	shown []finding.Finding
}

// AllFindings are Findings and those that are worked out for the first who asks: what policies name and nobody is, and
// what of exports and imports cannot succeed.
func (p *Published) AllFindings() []finding.Finding {
	p.once.Do(func() {
		p.shown = compile.Report(p.Findings, p.Snapshot, p.Mesh)
	})
	return p.shown
}

// with is the same with other findings.
func (p *Published) with(findings []finding.Finding) *Published {
	return &Published{
		Snapshot: p.Snapshot, Mesh: p.Mesh, Findings: findings, Generation: p.Generation, compiled: p.compiled,
	}
}

// Export says whether a name is exported to a peer, and whether an endpoint of the service is ready. Nil publishes
// nothing.
func (p *Published) Export(peer, sni string) (exported, ready bool) {
	if p == nil {
		return false, false
	}
	for _, e := range p.Mesh.Exports {
		if e.SNI == sni && e.Peer.Name == peer {
			return true, p.Mesh.IsReady(e)
		}
	}
	return false, false
}

// Unready are the services offered to a peer of which no endpoint is ready, sorted.
func (p *Published) Unready(peer string) (out []snapshot.OfferedName) {
	if p == nil {
		return nil
	}
	for _, e := range p.Mesh.Exports {
		if e.Peer.Name == peer && !p.Mesh.IsReady(e) {
			out = append(out, snapshot.OfferedName{Namespace: e.Service.ID.Namespace, Name: e.Alias})
		}
	}
	slices.SortFunc(out, snapshot.OfferedName.Compare)
	return out[:min(len(out), peerrules.MaxOffered)]
}

// InEffect leaves what a peer could call. What was written a moment ago and is not in force yet comes with it.
func (p *Published) InEffect(peer string, written []snapshot.OfferedService) []snapshot.OfferedService {
	if p == nil {
		return written
	}
	passes := compile.Passes(p.Mesh)
	return slices.DeleteFunc(slices.Clone(written), func(s snapshot.OfferedService) bool {
		return !slices.ContainsFunc(passes, func(e *model.Export) bool {
			return e.Peer.Name == peer && e.Alias == s.Name && e.Service.ID.Namespace == s.Namespace
		})
	})
}

// HasRoots says whether it has a peer's roots as they are in a newer snapshot.
func (p *Published) HasRoots(trustDomain string, newest *snapshot.Snapshot) bool {
	if p == nil || p.Mesh.Roots[trustDomain] == nil {
		return false
	}
	for _, mp := range snapshot.Of[*v1alpha1.MeshPeer](newest.Config) {
		if mp.Spec.TrustDomain == trustDomain &&
			string(newest.Peers[mp.Name].Roots) != string(p.Snapshot.Peers[mp.Name].Roots) {
			return false
		}
	}
	return true
}

// sameReadiness says that of each export it is true in both meshes, or in neither, that an endpoint is ready. The
// exports are the same in both.
func sameReadiness(before, now *model.Mesh) bool {
	return !slices.ContainsFunc(now.Exports, func(e *model.Export) bool { return before.IsReady(e) != now.IsReady(e) })
}
