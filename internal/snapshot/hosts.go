package snapshot

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/vip"
)

// hostKinds are the kinds whose objects have hosts that need a virtual address.
var hostKinds = []hostKind{
	hostsOf(func(s *corev1.Service, domain string) []string {
		return []string{model.ServiceHost(s.Name, s.Namespace, domain)}
	}),
	hostsOf(func(i *v1alpha1.FederatedImport, domain string) []string {
		return []string{model.ServiceHost(i.Name, i.Namespace, domain)}
	}),
	hostsOf(func(e *networking.ServiceEntry, _ string) (hosts []string) {
		for _, h := range e.Spec.Hosts {
			if !strings.HasPrefix(h, "*") {
				hosts = append(hosts, model.EntryHost(h))
			}
		}
		return hosts
	}),
}

type hostKind struct {
	hosts func(c *Config, domain string) []vip.Host
	same  func(a, b Set) bool
}

func hostsOf[T metav1.Object](names func(object T, domain string) []string) hostKind {
	hosts := func(c *Config, domain string) (out []vip.Host) {
		for _, o := range Of[T](c) {
			for _, name := range names(o, domain) {
				out = append(out, vip.Host{Name: name, Namespace: o.GetNamespace()})
			}
		}
		return out
	}
	return hostKind{hosts, Same[T]}
}

// Hosts lists the hosts that need a virtual address, each with its namespace. It may contain duplicates.
func (c *Config) Hosts() (out []vip.Host) {
	domain := model.DefaultDomain
	if m := c.Mesh(); m != nil {
		domain = cmp.Or(m.Spec.Domain, domain)
	}
	for _, k := range hostKinds {
		out = append(out, k.hosts(c, domain)...)
	}
	return out
}

// SameHosts reports whether everything that Hosts reads is identical (by pointer) in two configurations.
func (c *Config) SameHosts(d *Config) bool {
	return Same[*v1alpha1.Mesh](c, d) && !slices.ContainsFunc(hostKinds, func(k hostKind) bool { return !k.same(c, d) })
}
