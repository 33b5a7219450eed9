package meshd

import "isthmus.dev/isthmus/internal/adminapi"

// proxy is one of the proxies that the status lists.
func (p *plane) proxy(name string) adminapi.ProxyStatus {
	p.t.Helper()
	for _, s := range p.status().Proxies {
		if s.Name == name {
			return s
		}
	}
	return adminapi.ProxyStatus{}
}
