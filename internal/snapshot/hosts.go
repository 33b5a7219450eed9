package snapshot

import (
	"cmp"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/vip"
)

// Hosts lists the hosts that need a virtual address, each with its namespace. It may contain duplicates.
func (c *Config) Hosts() []vip.Host {
	domain := model.DefaultDomain
	if m := c.Mesh(); m != nil {
		domain = cmp.Or(m.Spec.Domain, domain)
	}
	var out []vip.Host
	for _, s := range Of[*corev1.Service](c) {
		out = append(out, vip.Host{Name: model.ServiceHost(s.Name, s.Namespace, domain), Namespace: s.Namespace})
	}
	for _, i := range Of[*v1alpha1.FederatedImport](c) {
		out = append(out, vip.Host{Name: model.ServiceHost(i.Name, i.Namespace, domain), Namespace: i.Namespace})
	}
	for _, e := range Of[*networking.ServiceEntry](c) {
		for _, h := range e.Spec.Hosts {
			if !strings.HasPrefix(h, "*") {
				out = append(out, vip.Host{Name: model.EntryHost(h), Namespace: e.Namespace})
			}
		}
	}
	return out
}

// SameHosts reports whether everything that Hosts reads is identical (by pointer) in two configurations.
func (c *Config) SameHosts(d *Config) bool {
	return Same[*v1alpha1.Mesh](c, d) && Same[*corev1.Service](c, d) && Same[*v1alpha1.FederatedImport](c, d) &&
		Same[*networking.ServiceEntry](c, d)
}
