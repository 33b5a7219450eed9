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

// Published is what is in effect: a snapshot, the compiled mesh and the findings. It is immutable.
type Published struct {
	Snapshot   *snapshot.Snapshot
	Mesh       *model.Mesh
	Findings   []finding.Finding // sorted
	Generation uint64            // counts publications

	compiled *compile.Compiled // contains Mesh

	once  sync.Once // guards the fields below
	shown []finding.Finding
}

// AllFindings returns Findings and those that are computed on first request: unmatched names in policies, and imports
// and exports that cannot work.
func (p *Published) AllFindings() []finding.Finding {
	p.once.Do(func() {
		p.shown = compile.Report(p.Findings, p.Snapshot, p.Mesh)
	})
	return p.shown
}

// with returns a copy with other findings.
func (p *Published) with(findings []finding.Finding) *Published {
	return &Published{
		Snapshot: p.Snapshot, Mesh: p.Mesh, Findings: findings, Generation: p.Generation, compiled: p.compiled,
	}
}

// Export reports whether a name is exported to a peer, and whether the service has a ready endpoint. A nil Published
// exports nothing.
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

// Unready returns the services offered to a peer that have no ready endpoint, sorted.
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

// InEffect returns the services that a peer could call, plus those written so recently that they are not in effect yet.
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

// HasRoots reports whether it has a peer's roots as in a newer snapshot.
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

// sameReadiness reports whether each export has a ready endpoint in both meshes or in neither. Both have the same
// exports.
func sameReadiness(before, now *model.Mesh) bool {
	return !slices.ContainsFunc(now.Exports, func(e *model.Export) bool { return before.IsReady(e) != now.IsReady(e) })
}
