package istioyaml

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
)

func checkWorkloadEntry(r *report, o *networking.WorkloadEntry, _ map[string]any) {
	r.workload("spec", &o.Spec, true)
}

// workload checks a WorkloadEntry, alone or as the endpoint of a ServiceEntry. onlyIP: its address is not looked up in DNS.
func (r *report) workload(path string, e *api.WorkloadEntry, onlyIP bool) {
	switch a := e.GetAddress(); {
	case a == "":
		r.refuse(CodeRequired, path+".address", "an endpoint needs an address", "write an IP address")
	case strings.HasPrefix(a, "unix:"):
		r.refuse(CodeUnsupported, path+".address", "Unix sockets are not supported", "write an IP address")
	case onlyIP && !isIP(a):
		r.refuse(CodeInvalid, path+".address", fmt.Sprintf("%q is not an IP address", clip(a)), "write an IP address; for host names use a ServiceEntry with resolution DNS")
	case !isIP(a) && !isHost(a):
		r.refuse(CodeInvalid, path+".address", fmt.Sprintf("%q is neither an IP address nor a host name", clip(a)), "write an IP address or a host name")
	default:
		r.nameable(path+".address", a)
	}
	ports := e.GetPorts()
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		at := childPath(path+".ports", name)
		if !isLabel(name) {
			r.refuse(CodeInvalid, at, fmt.Sprintf("%q cannot be a port's name", clip(name)), "use lower-case letters, digits and hyphens")
		}
		r.ownPort(at, int64(ports[name]))
	}
	r.matchLabels(path+".labels", e.GetLabels())
	if sa := e.GetServiceAccount(); sa != "" && !isSubdomain(sa) {
		r.refuse(CodeInvalid, path+".serviceAccount", fmt.Sprintf("%q cannot be a service account", clip(sa)), "use lower-case letters, digits, hyphens and dots")
	}
}
