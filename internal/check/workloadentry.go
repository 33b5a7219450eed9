package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
)

func workloadEntry(r *report, o *networking.WorkloadEntry) {
	r.workload("spec", &o.Spec, true)
}

// workload checks a WorkloadEntry, standalone or inline in a ServiceEntry. onlyIP means that host names are refused.
func (r *report) workload(path string, e *api.WorkloadEntry, onlyIP bool) {
	switch a := e.GetAddress(); {
	case a == "":
		r.find(finding.Required, path+".address", "an endpoint needs an address", "write an IP address")
	case strings.HasPrefix(a, "unix:"):
		r.find(finding.Unsupported, path+".address", "Unix sockets are not supported", "write an IP address")
	case onlyIP && !isIP(a):
		r.find(finding.Invalid, path+".address",
			fmt.Sprintf("%q is not an IP address", finding.Clip(a)),
			"write an IP address; for host names use a ServiceEntry with resolution DNS")
	case !isIP(a) && !isHost(a):
		r.find(finding.Invalid, path+".address",
			fmt.Sprintf("%q is neither an IP address nor a host name", finding.Clip(a)),
			"write an IP address or a host name")
	default:
		r.notReserved(path+".address", a)
	}
	ports := e.GetPorts()
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		at := finding.Child(path+".ports", name)
		if !isLabel(name) {
			r.find(finding.Invalid, at,
				fmt.Sprintf("%q cannot be a port's name", finding.Clip(name)),
				"use lower-case letters, digits and hyphens")
		}
		r.ownPort(at, int64(ports[name]))
	}
	r.matchLabels(path+".labels", e.GetLabels())
	if sa := e.GetServiceAccount(); sa != "" && !isSubdomain(sa) {
		r.find(finding.Invalid, path+".serviceAccount",
			fmt.Sprintf("%q cannot be a service account", finding.Clip(sa)),
			"use lower-case letters, digits, hyphens and dots")
	}
}
