package model

import "strings"

// DefaultDomain is the DNS suffix of services unless the Mesh sets another.
const DefaultDomain = "cluster.local"

// ServiceSuffix returns the DNS suffix that all services have in common: svc.<domain>.
func ServiceSuffix(domain string) string { return "svc." + domain }

// DomainOf returns the domain in a ServiceSuffix.
func DomainOf(suffix string) string { return strings.TrimPrefix(suffix, "svc.") }

// ServiceHost returns the host name of a Service, or of an import of the same name: <name>.<namespace>.svc.<domain>
// (Kubernetes: DNS for Services).
func ServiceHost(name, namespace, domain string) string {
	return name + "." + namespace + "." + ServiceSuffix(domain)
}

// EntryHost normalises a host of a ServiceEntry for comparison: lower case, no trailing dot.
func EntryHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// HostNames returns the names by which a request may address a service: its host and, for a service of the mesh, the
// shorter Kubernetes forms.
func HostNames(svc *Service, domain string) []string {
	short, ok := strings.CutSuffix(svc.Host, "."+ServiceSuffix(domain))
	if !ok {
		return []string{svc.Host}
	}
	return []string{svc.Host, short, short + ".svc", strings.TrimSuffix(short, "."+svc.ID.Namespace)}
}
