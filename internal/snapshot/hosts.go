package snapshot

import (
	"cmp"
	"strings"
)

// Hosts that need a virtual address, in no order; one may come twice.
func (c *Config) Hosts() []string {
	domain := "cluster.local"
	if c.Mesh != nil {
		domain = cmp.Or(c.Mesh.Spec.Domain, domain)
	}
	var out []string
	for _, s := range c.Services {
		out = append(out, s.Name+"."+s.Namespace+".svc."+domain)
	}
	for _, i := range c.FederatedImports {
		out = append(out, i.Name+"."+i.Namespace+".svc."+domain)
	}
	for _, e := range c.ServiceEntries {
		for _, h := range e.Spec.Hosts {
			if !strings.HasPrefix(h, "*") {
				out = append(out, strings.ToLower(strings.TrimSuffix(h, ".")))
			}
		}
	}
	return out
}
