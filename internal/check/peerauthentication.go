package check

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	securityapi "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/finding"
)

func peerAuthentication(r *report, o *security.PeerAuthentication) {
	r.selector("spec.selector", o.Spec.GetSelector())
	r.mode("spec.mtls", o.Spec.GetMtls())
	ports := o.Spec.GetPortLevelMtls()
	if len(ports) > 0 && len(o.Spec.GetSelector().GetMatchLabels()) == 0 {
		r.find(finding.Invalid, "spec.portLevelMtls",
			"modes of single ports need a selector, since ports belong to workloads",
			"write spec.selector.matchLabels, or use spec.mtls")
	}
	r.atMost("spec.portLevelMtls", len(ports), maxServicePorts)
	for _, n := range slices.Sorted(maps.Keys(ports)) {
		path := finding.Child("spec.portLevelMtls", strconv.FormatUint(uint64(n), 10))
		r.portNumber(path, int64(n))
		r.mode(path, ports[n])
		if ports[n] == nil {
			r.find(finding.Required, path, "the port has no mode", fmt.Sprintf("write %d: {mode: STRICT}", n))
		}
	}
}

func (r *report) mode(path string, m *securityapi.PeerAuthentication_MutualTLS) {
	if _, ok := securityapi.PeerAuthentication_MutualTLS_Mode_name[int32(m.GetMode())]; !ok {
		r.find(finding.UnknownValue, path+".mode",
			fmt.Sprintf("%d is not a mode", m.GetMode()), "use STRICT, PERMISSIVE or DISABLE")
	}
}
