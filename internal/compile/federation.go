package compile

import (
	"fmt"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

// peer returns nil for a peer whose control plane may not talk to ours.
func (l *linker) peer(key snapshot.Key, p *v1alpha1.MeshPeer, v peerrules.Verdict) *model.Peer {
	if !v.Live {
		code := finding.Code("ISM0053")
		if v.Reason == peerrules.OwnTrustDomain || v.Reason == peerrules.SameTrustDomain ||
			v.Reason == peerrules.SharedRoot || v.Reason == peerrules.BadRoots {
			code = "ISM0050"
		}
		l.find(key, code,
			"spec",
			"nothing passes between this mesh and the peer: "+v.Message,
			"isthmus peer status "+p.Name)
	}
	if !v.Control {
		return nil
	}
	td, err := spiffe.ParseTrustDomain(p.Spec.TrustDomain)
	if err != nil || !l.gatewaysInDomain(key, p, td) ||
		!l.canBeNamed(key, "spec.trustDomain", sni.Control(p.Spec.KnownAs, td.Name()),
			sni.Control(p.Name, l.in.mesh.trustDomain.Name())) {
		return nil
	}
	return &model.Peer{
		Name: p.Name, Live: v.Live, TrustDomain: td, KnownAs: p.Spec.KnownAs,
		Addresses: p.Spec.GatewayAddresses, GatewayIDs: p.Spec.GatewayIDs, Ref: l.ref(key),
	}
}

// gatewaysInDomain refuses a peer whose gateways have an identity outside its trust domain.
func (r *report) gatewaysInDomain(key snapshot.Key, p *v1alpha1.MeshPeer, td spiffe.TrustDomain) bool {
	for n, s := range p.Spec.GatewayIDs {
		id, err := spiffe.Parse(s)
		if err != nil || !id.MemberOf(td) {
			r.find(key, "ISM0051", fmt.Sprintf("spec.gatewayIDs[%d]", n),
				fmt.Sprintf("%q is no SPIFFE ID in trust domain %s", s, td.Name()))
			return false
		}
	}
	return len(p.Spec.GatewayIDs) > 0
}

// canBeNamed refuses names that do not fit into a TLS server name.
func (r *report) canBeNamed(key snapshot.Key, field string, names ...string) bool {
	for _, n := range names {
		if len(n) > sni.MaxLen {
			r.find(key, "ISM0052", field,
				fmt.Sprintf("between the meshes this would be called %s, %d characters long, where %d fit; it is ignored",
					n, len(n), sni.MaxLen))
			return false
		}
	}
	return true
}
