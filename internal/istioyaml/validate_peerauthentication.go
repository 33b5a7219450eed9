package istioyaml

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	security "istio.io/client-go/pkg/apis/security/v1"
)

func checkPeerAuthentication(r *report, o *security.PeerAuthentication, doc map[string]any) {
	r.selector("spec.selector", o.Spec.GetSelector())
	ports := o.Spec.GetPortLevelMtls()
	spec, _ := doc["spec"].(map[string]any)
	if written, ok := spec["portLevelMtls"].(map[string]any); ok && len(written) == 0 {
		r.refuse(CodeInvalid, "spec.portLevelMtls", "no port is written inside", "write a port and its mode, or remove the field")
	}
	if len(ports) > 0 && len(o.Spec.GetSelector().GetMatchLabels()) == 0 {
		r.refuse(CodeInvalid, "spec.portLevelMtls", "modes of single ports need a selector, since ports belong to workloads", "write spec.selector.matchLabels, or use spec.mtls")
	}
	r.atMost("spec.portLevelMtls", len(ports), maxServicePorts)
	for _, n := range slices.Sorted(maps.Keys(ports)) {
		path := childPath("spec.portLevelMtls", strconv.FormatUint(uint64(n), 10))
		r.portNumber(path, int64(n))
		if ports[n] == nil {
			r.refuse(CodeRequired, path, "the port has no mode", fmt.Sprintf("write %d: {mode: STRICT}", n))
		}
	}
}
