package snapshot

import (
	"cmp"
	"strings"

	"isthmus.dev/isthmus/internal/vip"
)

// Hosts that need a virtual address, with the namespace whose they are; one may come twice.
func (c *Config) Hosts() []vip.Host {
	domain := "cluster.local"
	if c.Mesh != nil {
		domain = cmp.Or(c.Mesh.Spec.Domain, domain)
	}
	var out []vip.Host
	for _, s := range c.Services {
		out = append(out, vip.Host{Name: s.Name + "." + s.Namespace + ".svc." + domain, Namespace: s.Namespace})
	}
	for _, i := range c.FederatedImports {
		out = append(out, vip.Host{Name: i.Name + "." + i.Namespace + ".svc." + domain, Namespace: i.Namespace})
	}
	for _, e := range c.ServiceEntries {
		for _, h := range e.Spec.Hosts {
			if !strings.HasPrefix(h, "*") {
				out = append(out, vip.Host{Name: strings.ToLower(strings.TrimSuffix(h, ".")), Namespace: e.Namespace})
			}
		}
	}
	return out
}
