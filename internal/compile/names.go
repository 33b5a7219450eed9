package compile

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A resolver appends each suffix of its search list (in Kubernetes <namespace>.svc.<domain>, svc.<domain>, <domain>,
// and what the host has) to a name with fewer than ndots dots (5 in Kubernetes), before it asks for the name itself. So
// what a program writes as b.default.svc.cluster.local is first asked for as b.default.svc.cluster.local.cluster.local,
// and who has that name has b's calls. All that a Service's name may become belongs to the Service's namespace.

// mayClaimHost refuses a ServiceEntry's host that a resolver may make of a Service's name in another namespace.
func (c *compiler) mayClaimHost(se *networking.ServiceEntry, field, host string) bool {
	owners, fault := c.hostOwners(se.Namespace, host)
	key := snapshot.Key{Kind: "ServiceEntry", Namespace: se.Namespace, Name: se.Name}
	if fault != "" {
		c.find(key, "ISM0024", finding.Error, field, host+" "+fault+"; the host is not served",
			"write a whole host name outside "+c.mesh.Domain+", such as "+firstLabel(host)+".example.com")
		return false
	}
	for _, owner := range owners {
		if owner != se.Namespace {
			c.find(key, "ISM0024", finding.Error, field,
				fmt.Sprintf("%s is a name of namespace %s; the host is not served", host, owner),
				"move the ServiceEntry to namespace "+owner+", or choose another host")
			return false
		}
	}
	return true
}

func firstLabel(host string) string {
	label, _, _ := strings.Cut(host, ".")
	return label
}

// hostOwners are the namespaces in which a Service's name may become a host; none for a host that has nothing to do
// with Services. A fault says why it can be nobody's.
func (c *compiler) hostOwners(own, host string) (owners []string, fault string) {
	services := "svc." + c.mesh.Domain
	switch {
	case !strings.Contains(host, "."):
		return nil, "could be taken for the short name of a Service"
	case host == c.mesh.Domain, host == services:
		return nil, "is the mesh's own domain"
	}
	if i := strings.Index(host+".", "."+services+"."); i >= 0 {
		whole := len(host) == i+1+len(services)
		return c.underServices(own, host[:i], whole)
	}
	if strings.HasSuffix(host, "."+c.mesh.Domain) {
		return nil, "lies in the mesh's own domain, where resolvers look for names that are written without it"
	}
	labels := strings.Split(host, ".")
	switch n := len(labels); {
	case n == 2 && slices.Contains(c.mesh.Namespaces, labels[1]):
		return labels[1:], ""
	case n > 2 && labels[n-1] == "svc":
		return labels[n-2 : n-1], ""
	}
	return nil, ""
}

// underServices is hostOwners of <name>.svc.<domain>, and, where that is not the whole host, of what follows on it.
func (c *compiler) underServices(own, name string, whole bool) ([]string, string) {
	labels := strings.Split(name, ".")
	n := len(labels)
	owner := labels[n-1]
	switch {
	case n == 1:
		return nil, "is the domain of a namespace, or the short name of a Service made long"
	case !whole || n == 2:
		return []string{owner}, ""
	}
	// <service>.<namespace>.svc, with a suffix of the search list
	for i := 2; i < n; i++ {
		if labels[i] == "svc" && i >= n-2 {
			return labels[i-1 : i], ""
		}
	}
	owners := []string{owner}
	if n == 3 && slices.Contains(c.mesh.Namespaces, labels[1]) { // <service>.<namespace>, with a suffix
		owners = append(owners, labels[1])
	}
	if owner == own && (n > 3 || c.mesh.Services[model.ServiceID{Namespace: own, Name: labels[1]}] == nil) {
		return nil, "could be another name made long by a resolver: below a namespace only names below " +
			"its Services may be served"
	}
	return owners, ""
}
