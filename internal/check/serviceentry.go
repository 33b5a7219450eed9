package check

import (
	"fmt"
	"slices"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
)

func serviceEntry(r *report, o *networking.ServiceEntry) {
	s := &o.Spec
	r.atMost("spec.hosts", len(s.Hosts), maxHosts)
	r.atMost("spec.ports", len(s.Ports), maxServicePorts)
	r.atMost("spec.addresses", len(s.Addresses), maxAddresses)
	r.atMost("spec.endpoints", len(s.Endpoints), maxEndpoints)
	r.atMost("spec.exportTo", len(s.ExportTo), maxNamespaces)
	if n := len(s.Hosts) * len(s.Ports); n > maxDestinations {
		r.find(finding.Invalid, "spec.hosts",
			fmt.Sprintf("%d hosts with %d ports each are %d destinations, more than %d", len(s.Hosts), len(s.Ports), n,
				maxDestinations),
			"split the entry into several, and limit who sees each with exportTo")
	}
	r.hosts(s)
	for i, a := range s.Addresses {
		path := fmt.Sprintf("spec.addresses[%d]", i)
		r.ipOrRange(path, a)
		r.notReserved(path, a)
	}
	r.servicePorts(s)
	r.resolution(s)
	r.exportTo(s.ExportTo)
	switch {
	case len(s.SubjectAltNames) == 0:
	case s.Location == api.ServiceEntry_MESH_INTERNAL:
		r.find(finding.Unsupported, "spec.subjectAltNames",
			"servers in the mesh are known by their service accounts, not by names listed here",
			"remove it, and name the serviceAccount of each endpoint")
	default:
		r.find(finding.Doubtful, "spec.subjectAltNames",
			"has no effect: the mesh opens no TLS of its own to what is outside, so the application checks the server's name",
			"remove it")
	}
	if s.WorkloadSelector != nil {
		r.matchLabels("spec.workloadSelector.labels", s.WorkloadSelector.Labels)
		if len(s.WorkloadSelector.Labels) == 0 {
			r.find(finding.Required, "spec.workloadSelector.labels",
				"a selector without labels selects nothing",
				"write at least one label")
		}
		if len(s.Endpoints) > 0 {
			r.find(finding.Invalid, "spec.endpoints",
				"endpoints and workloadSelector exclude each other",
				"keep one of the two")
		}
	}
	for i, e := range s.Endpoints {
		r.endpoint(fmt.Sprintf("spec.endpoints[%d]", i), e, s)
	}
}

func (r *report) hosts(s *api.ServiceEntry) {
	if len(s.Hosts) == 0 {
		r.find(finding.Required, "spec.hosts", "a ServiceEntry needs a host", "write at least one host name")
	}
	for i, h := range s.Hosts {
		path := fmt.Sprintf("spec.hosts[%d]", i)
		switch rest, wild := strings.CutPrefix(h, "*."); {
		case h == "*":
			r.find(finding.Invalid, path, "the bare host * would be every host there is", "name the hosts")
		case !isHost(rest):
			r.find(finding.Invalid, path,
				fmt.Sprintf("%q is not a host name", finding.Clip(h)),
				"write a name such as api.example.com")
		case rest == "localhost" || strings.HasSuffix(rest, ".localhost"):
			r.notReserved(path, rest)
		case wild:
			r.find(finding.Unsupported, path,
				fmt.Sprintf("the wildcard host %q is not supported yet", finding.Clip(h)),
				"name the hosts one by one")
		case slices.Contains(s.Hosts[:i], h):
			r.find(finding.Invalid, path, fmt.Sprintf("%q is written twice", finding.Clip(h)), "keep one of the two")
		}
	}
}

func (r *report) servicePorts(s *api.ServiceEntry) {
	if len(s.Ports) == 0 {
		r.find(finding.Required, "spec.ports",
			"a ServiceEntry needs a port", "write at least one port with number, name and protocol")
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range s.Ports {
		path := fmt.Sprintf("spec.ports[%d]", i)
		r.ownPort(path+".number", int64(p.GetNumber()))
		if p.GetTargetPort() != 0 {
			r.ownPort(path+".targetPort", int64(p.GetTargetPort()))
		}
		switch {
		case p.GetName() == "":
			r.find(finding.Required, path+".name", "a port needs a name", "write name, for example name: https")
		case names[p.Name]:
			r.find(finding.Invalid, path+".name",
				fmt.Sprintf("two ports are named %q", finding.Clip(p.Name)),
				"give each port its own name")
		case !isLabel(p.Name):
			r.find(finding.Invalid, path+".name",
				fmt.Sprintf("%q cannot be a port's name", finding.Clip(p.Name)),
				"use lower-case letters, digits and hyphens")
		}
		if numbers[p.GetNumber()] {
			r.find(finding.Invalid, path+".number",
				fmt.Sprintf("port %d is written twice", p.GetNumber()),
				"keep one of the two")
		}
		names[p.GetName()], numbers[p.GetNumber()] = true, true
		r.protocol(path+".protocol", p.GetProtocol())
	}
}

var protocols = []string{"HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TLS", "TCP", "MONGO", "MYSQL", "REDIS"}

func (r *report) protocol(path, v string) {
	if v == "" {
		return // TCP
	}
	if strings.EqualFold(v, "UDP") {
		r.find(finding.Unsupported, path, "UDP does not cross the mesh", "use one of: "+strings.Join(protocols, ", "))
	} else if !slices.Contains(protocols, strings.ToUpper(v)) {
		r.find(finding.UnknownValue, path,
			fmt.Sprintf("%q is not a protocol", finding.Clip(v)),
			finding.DidYouMean(v, protocols))
	}
}

func (r *report) resolution(s *api.ServiceEntry) {
	switch s.Resolution {
	case api.ServiceEntry_STATIC:
		if len(s.Endpoints) == 0 && s.WorkloadSelector == nil {
			r.find(finding.Doubtful, "spec.endpoints",
				"STATIC without endpoints leads nowhere", "write endpoints or workloadSelector")
		}
	case api.ServiceEntry_DNS, api.ServiceEntry_DNS_ROUND_ROBIN:
		if s.Resolution == api.ServiceEntry_DNS_ROUND_ROBIN && len(s.Endpoints) > 1 {
			r.find(finding.Invalid, "spec.endpoints",
				"DNS_ROUND_ROBIN takes one endpoint at most",
				"keep one endpoint, or use resolution DNS")
		}
		for i, a := range s.Addresses {
			if isRange(a) && !isIP(a) {
				r.find(finding.Invalid, fmt.Sprintf("spec.addresses[%d]", i),
					"a range cannot stand beside resolution "+s.Resolution.String(),
					"write single addresses")
			}
		}
	default:
		r.find(finding.Unsupported, "spec.resolution",
			fmt.Sprintf("resolution %s is not supported yet", s.Resolution),
			"use STATIC with endpoints, or DNS")
	}
}

func (r *report) endpoint(path string, e *api.WorkloadEntry, s *api.ServiceEntry) {
	r.workload(path, e, s.Resolution == api.ServiceEntry_STATIC)
	for name := range e.GetPorts() {
		if !slices.ContainsFunc(s.Ports, func(p *api.ServicePort) bool { return p.GetName() == name }) {
			r.find(finding.Invalid, finding.Child(path+".ports", name),
				fmt.Sprintf("the entry has no port named %q", finding.Clip(name)),
				"use a name of spec.ports")
		}
	}
}

func (r *report) exportTo(list []string) {
	for i, ns := range list {
		path := fmt.Sprintf("spec.exportTo[%d]", i)
		switch {
		case ns != "." && ns != "*" && ns != "~" && !isLabel(ns):
			r.find(finding.Invalid, path,
				fmt.Sprintf("%q is not a namespace", finding.Clip(ns)),
				`write a namespace, "." for its own, "*" for all or "~" for none`)
		case slices.Contains(list[:i], ns):
			r.find(finding.Invalid, path, fmt.Sprintf("%q is written twice", finding.Clip(ns)), "keep one of the two")
		}
	}
}
