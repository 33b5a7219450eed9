package model

import "strings"

// DefaultDomain is where the names of services end, unless the Mesh says otherwise.
const DefaultDomain = "cluster.local"

// ServiceHost is the name of a Service, or of an import beside it: <name>.<namespace>.svc.<domain> (Kubernetes: DNS for
// Services).
func ServiceHost(name, namespace, domain string) string {
	return name + "." + namespace + ".svc." + domain
}

// EntryHost is a host of a ServiceEntry as it is compared: in lower case, without the dot at its end.
func EntryHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// HostNames are the names by which a request may address a service: its host, and for a service of the mesh the shorter
// forms.
func HostNames(svc *Service, domain string) []string {
	short, ok := strings.CutSuffix(svc.Host, ".svc."+domain)
	if !ok {
		return []string{svc.Host}
	}
	return []string{svc.Host, short, short + ".svc", strings.TrimSuffix(short, "."+svc.ID.Namespace)}
}
