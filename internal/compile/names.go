package compile

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Resolvers append the suffixes of a search list (in Kubernetes <namespace>.svc.<domain>, svc.<domain>, <domain>, then
// the host's own) to names with fewer than ndots dots (5 in Kubernetes) before they try the name itself. So a program
// that asks for b.default.svc.cluster.local first asks for b.default.svc.cluster.local.cluster.local, and whoever has
// that name gets b's calls. Therefore every name that a Service's name can expand to belongs to the Service's
// namespace.

// hostOwnership decides which namespace may use a host.
type hostOwnership struct {
	domain     string
	namespaces []string
	hasService func(namespace, name string) bool
}

// fault says why a ServiceEntry of namespace own may not serve a host, and what to do. Both are empty if it may.
func (h hostOwnership) fault(own, host string) (message, remedy string) {
	owners, fault := h.owners(own, host)
	if fault != "" {
		return host + " " + fault + "; the host is not served",
			"write a whole host name outside " + h.domain + ", such as " + firstLabel(host) + ".example.com"
	}
	for _, owner := range owners {
		if owner != own {
			return fmt.Sprintf("%s is a name of namespace %s; the host is not served", host, owner),
				"move the ServiceEntry to namespace " + owner + ", or choose another host"
		}
	}
	return "", ""
}

func firstLabel(host string) string {
	label, _, _ := strings.Cut(host, ".")
	return label
}

// owners returns the namespaces whose Services' names can expand to a host; none if the host is unrelated to Services.
// fault returns why no object may have the host.
func (h hostOwnership) owners(own, host string) (owners []string, fault string) {
	services := model.ServiceSuffix(h.domain)
	switch {
	case !strings.Contains(host, "."):
		return nil, "could be taken for the short name of a Service"
	case host == h.domain, host == services:
		return nil, "is the mesh's own domain"
	}
	if i := strings.Index(host+".", "."+services+"."); i >= 0 {
		whole := len(host) == i+1+len(services)
		return h.underServices(own, host[:i], whole)
	}
	if strings.HasSuffix(host, "."+h.domain) {
		return nil, "lies in the mesh's own domain, where resolvers look for names that are written without it"
	}
	labels := strings.Split(host, ".")
	switch n := len(labels); {
	case n == 2 && slices.Contains(h.namespaces, labels[1]):
		return labels[1:], ""
	case n > 2 && labels[n-1] == "svc":
		return labels[n-2 : n-1], ""
	}
	return nil, ""
}

// underServices returns the owners of <name>.svc.<domain>. If whole is false, the host continues after that.
func (h hostOwnership) underServices(own, name string, whole bool) ([]string, string) {
	labels := strings.Split(name, ".")
	n := len(labels)
	owner := labels[n-1]
	switch {
	case n == 1:
		return nil, "is the domain of a namespace, or the short name of a Service made long"
	case !whole || n == 2:
		return []string{owner}, ""
	}
	// <service>.<namespace>.svc with a suffix of the search list
	for i := 2; i < n; i++ {
		if labels[i] == "svc" && i >= n-2 {
			return labels[i-1 : i], ""
		}
	}
	owners := []string{owner}
	if n == 3 && slices.Contains(h.namespaces, labels[1]) { // <service>.<namespace> with a suffix
		owners = append(owners, labels[1])
	}
	if owner == own && (n > 3 || !h.hasService(own, labels[1])) {
		return nil, "could be another name made long by a resolver: below a namespace only names below " +
			"its Services may be served"
	}
	return owners, ""
}
