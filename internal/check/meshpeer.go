package check

import (
	"fmt"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
)

func meshPeer(r *report, o *v1alpha1.MeshPeer) {
	r.ownTrustDomain("spec.trustDomain", o.Spec.TrustDomain)
	r.hostPorts("spec.gatewayAddresses", o.Spec.GatewayAddresses)
	td, err := spiffe.ParseTrustDomain(o.Spec.TrustDomain)
	for i, v := range o.Spec.GatewayIDs {
		id, idErr := spiffe.Parse(v)
		if err == nil && (idErr != nil || !id.MemberOf(td)) {
			r.find(finding.Invalid, fmt.Sprintf("spec.gatewayIDs[%d]", i),
				fmt.Sprintf("%q is not a SPIFFE ID in the trust domain %s", finding.Clip(v), td.Name()),
				"write the gateway's exact ID, for example spiffe://"+td.Name()+"/ns/isthmus-system/sa/gateway")
		}
	}
	if o.Spec.Bundle.Inline != "" {
		if _, err := peerrules.ParseRoots([]byte(o.Spec.Bundle.Inline)); err != nil {
			r.find(finding.Invalid, "spec.bundle.inline",
				err.Error(), "paste the peer's root certificates as PEM behind inline: |")
		}
	}
	r.duration("spec.maxBundleAge", o.Spec.MaxBundleAge, peerrules.LeastBundleAge, peerrules.MostBundleAge)
}
