package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/vip"
)

func services(c *compiler) {
	c.byHost = make(map[string]*model.Service, len(snapshot.Of[*corev1.Service](c.cfg)))
	c.backing = map[*model.Port][]backing{}
	c.keys = map[*model.Service]snapshot.Key{}
	for _, s := range snapshot.OldestFirst[*corev1.Service](c.cfg) {
		key := snapshot.Key{Kind: "Service", Namespace: s.Namespace, Name: s.Name}
		c.guarded(key, func() { c.addService(key, s) })
	}
	imports := c.importedHosts()
	for _, se := range snapshot.OldestFirst[*networking.ServiceEntry](c.cfg) {
		key := snapshot.Key{Kind: "ServiceEntry", Namespace: se.Namespace, Name: se.Name}
		c.guarded(key, func() { c.addServiceEntry(key, se, imports) })
	}
	c.reportNoRoom()
}

// importedHosts are the hosts that FederatedImports ask for.
func (c *compiler) importedHosts() map[string]snapshot.Key {
	hosts := make(map[string]snapshot.Key, len(snapshot.Of[*v1alpha1.FederatedImport](c.cfg)))
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](c.cfg) {
		hosts[importHost(i, c.mesh.Domain)] = snapshot.Key{Kind: "FederatedImport", Namespace: i.Namespace, Name: i.Name}
	}
	return hosts
}

func (c *compiler) addService(key snapshot.Key, s *corev1.Service) {
	svc := &model.Service{
		ID:   model.ServiceID{Namespace: s.Namespace, Name: s.Name},
		Host: fmt.Sprintf("%s.%s.svc.%s", s.Name, s.Namespace, c.mesh.Domain),
		Refs: []model.Ref{c.ref(key)},
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return // a DNS alias, nothing to serve
	}
	ports := slices.DeleteFunc(slices.Clone(s.Spec.Ports), func(p corev1.ServicePort) bool {
		return p.Protocol != "" && p.Protocol != corev1.ProtocolTCP // only TCP crosses the mesh; reading it warned
	})
	if !c.hasRoom(key, len(ports)) {
		return
	}
	c.place(key, svc, append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...))
	backends := c.selected(s.Namespace, s.Spec.Selector)
	for n, p := range s.Spec.Ports {
		if !slices.ContainsFunc(ports, func(q corev1.ServicePort) bool { return q.Port == p.Port && q.Protocol == p.Protocol }) {
			continue
		}
		port := &model.Port{Number: uint16(p.Port), Protocol: model.PortProtocol(p.AppProtocol, p.Name)}
		c.targetsNobody(key, fmt.Sprintf("spec.ports[%d].targetPort", n), backends, p.TargetPort, port.Number)
		c.back(svc, port, backends, func(i *instance) uint16 { return targetPort(i, p.TargetPort, port.Number) })
	}
}

// targetsNobody says that none of the workloads behind a port has what it targets.
func (c *compiler) targetsNobody(key snapshot.Key, field string, backends []*instance, target intstr.IntOrString, port uint16) {
	var have []string
	for _, i := range backends {
		number := targetPort(i, target, port)
		if i.workload == nil || len(i.ports) == 0 || number != 0 && slices.Contains(slices.Collect(maps.Values(i.ports)), number) {
			return // one that has it, or that does not say what it has
		}
		for name, n := range i.ports {
			if text := fmt.Sprint(n); name != text {
				have = append(have, fmt.Sprintf("%s (%s)", text, name))
			} else {
				have = append(have, text)
			}
		}
	}
	if len(backends) == 0 {
		return
	}
	slices.Sort(have)
	what := target.String()
	if target == (intstr.IntOrString{}) {
		what = fmt.Sprint(port)
	}
	c.find(key, "ISM0302", finding.Warning, field,
		fmt.Sprintf("no workload behind it names a port %s among its own (%s): where nothing listens, every call fails", what, strings.Join(slices.Compact(have), ", ")),
		"write one of these, or add the port to the workloads in their nodes' settings")
}

// place gives a service its virtual addresses and its names.
func (c *compiler) place(key snapshot.Key, svc *model.Service, clusterIPs []string) {
	c.keys[svc] = key
	svc.VIP, svc.VIP6 = c.ownVIPs(svc)
	for _, text := range clusterIPs {
		switch ip, err := netip.ParseAddr(text); {
		case err != nil:
		case ip.Unmap().Is4():
			svc.VIP = ip.Unmap()
		default:
			svc.VIP6 = ip
		}
	}
	c.mesh.Services[svc.ID] = svc
	c.byHost[svc.Host] = svc
}

// ownVIPs are the virtual addresses that the mesh gave the service.
func (c *compiler) ownVIPs(svc *model.Service) (four, six netip.Addr) {
	four = c.snap.VIPs[svc.Host]
	return four, vip.Six(four)
}

// back adds a port with the instances that serve it.
func (c *compiler) back(svc *model.Service, port *model.Port, backends []*instance, target func(*instance) uint16) {
	svc.Ports = append(svc.Ports, port)
	set := model.EndpointSet{Host: svc.Host, Port: port.Number}
	heard := slices.ContainsFunc(backends, func(i *instance) bool { return i.ready && !i.silent && target(i) != 0 })
	for _, i := range backends {
		number := target(i)
		if number == 0 {
			continue
		}
		c.backing[port] = append(c.backing[port], backing{i, number})
		c.addEndpoints(set, i, number, i.ready && !(i.silent && heard))
		if i.workload != nil {
			c.listen(i.workload, number, port.Protocol, svc)
		}
	}
	port.Identities = identities(c.backing[port])
	port.MTLS = len(port.Identities) > 0 && !svc.External && c.speaksMTLS(c.backing[port])
}

// backing is an instance that serves a port, and where.
type backing struct {
	*instance
	number uint16
}

func identities(is []backing) []string {
	var ids []string
	for _, i := range is {
		if i.identity != "" {
			ids = append(ids, i.identity)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func targetPort(i *instance, target intstr.IntOrString, service uint16) uint16 {
	switch {
	case target.Type == intstr.String && target.StrVal != "":
		return i.ports[target.StrVal]
	case target.IntVal > 0:
		return uint16(target.IntVal)
	}
	return service
}

func (c *compiler) addServiceEntry(key snapshot.Key, se *networking.ServiceEntry, imports map[string]snapshot.Key) {
	if r := se.Spec.Resolution; r != istio.ServiceEntry_STATIC && r != istio.ServiceEntry_DNS && r != istio.ServiceEntry_DNS_ROUND_ROBIN {
		c.find(key, "ISM0020", finding.Error, "spec.resolution", fmt.Sprintf("resolution %s is not supported yet; the entry is not served", r), "use STATIC or DNS")
		return
	}
	for n, host := range se.Spec.Hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		field := fmt.Sprintf("spec.hosts[%d]", n)
		if strings.HasPrefix(host, "*") {
			c.find(key, "ISM0021", finding.Error, field, "wildcard host "+host+" is not supported yet; the host is not served", "list each host by name")
			continue
		}
		if other := c.byHost[host]; other != nil {
			c.find(key, "ISM0022", finding.Error, field, fmt.Sprintf("host %s is already served by %s; this one is ignored", host, other.Refs[0]), "remove one of them")
			continue
		}
		if other, ok := imports[host]; ok && c.cfg.Older(other, key) < 0 && !c.cfg.SameAge(other, key) {
			c.find(key, "ISM0022", finding.Error, field,
				fmt.Sprintf("host %s is already imported by %s; this one is ignored", host, c.ref(other)),
				"remove one of them")
			continue
		}
		if c.mayClaimHost(se, field, host) && c.hasRoom(key, len(se.Spec.Ports)) {
			c.addServiceEntryHost(se, key, host)
		}
	}
}

func (c *compiler) addServiceEntryHost(se *networking.ServiceEntry, key snapshot.Key, host string) {
	svc := &model.Service{
		ID: model.ServiceID{Namespace: se.Namespace, Name: host}, Host: host,
		External: se.Spec.Location == istio.ServiceEntry_MESH_EXTERNAL,
		DNS:      se.Spec.Resolution != istio.ServiceEntry_STATIC,
		ExportTo: exportTo(se.Spec.ExportTo, se.Namespace),
		Refs:     []model.Ref{c.ref(key)},
	}
	c.place(key, svc, nil)
	for n, a := range se.Spec.Addresses {
		p, ok := parsePrefix(a)
		if !ok {
			c.find(key, "ISM0023", finding.Error, fmt.Sprintf("spec.addresses[%d]", n), fmt.Sprintf("%q is no IP address or CIDR", a), "write an address such as 192.0.2.10 or a range such as 192.0.2.0/24")
			continue
		}
		svc.Prefixes = append(svc.Prefixes, p)
	}
	backends := c.entryBackends(se, host)
	for _, p := range se.Spec.Ports {
		port := &model.Port{Number: uint16(p.Number), Protocol: model.ParseProtocol(p.Protocol)}
		c.back(svc, port, backends, func(i *instance) uint16 {
			if n, ok := i.ports[p.Name]; ok {
				return n
			}
			if p.TargetPort > 0 {
				return uint16(p.TargetPort)
			}
			return port.Number
		})
	}
}

// entryBackends are the instances that an entry's selector selects, or its inline endpoints; with resolution DNS these may
// have host names, and without any the entry's own host is looked up.
func (c *compiler) entryBackends(se *networking.ServiceEntry, host string) []*instance {
	if se.Spec.WorkloadSelector != nil {
		return c.selected(se.Namespace, se.Spec.WorkloadSelector.Labels)
	}
	dns := se.Spec.Resolution != istio.ServiceEntry_STATIC
	if dns && len(se.Spec.Endpoints) == 0 {
		return []*instance{{namespace: se.Namespace, name: se.Name, host: host, weight: 1, ready: true}}
	}
	var out []*instance
	for _, ep := range se.Spec.Endpoints {
		i := entryInstance(c.mesh.TrustDomain, se.Namespace, se.Name, ep)
		if i.host == "" || dns {
			out = append(out, i)
		}
	}
	return out
}

// entryInstance is an entry as something that serves: at an address, or under a host name.
func entryInstance(td spiffe.TrustDomain, namespace, name string, e *istio.WorkloadEntry) *instance {
	i := &instance{
		namespace: namespace, name: name, labels: e.Labels, weight: max(e.Weight, 1), ready: true,
		ports: make(map[string]uint16, len(e.Ports)),
	}
	if addr, err := netip.ParseAddr(e.Address); err == nil && addr.Zone() == "" {
		i.addrs = []netip.Addr{addr.Unmap()}
	} else {
		i.host = e.Address
	}
	for k, p := range e.Ports {
		i.ports[k] = uint16(p)
	}
	if e.ServiceAccount != "" {
		if id, err := spiffe.Workload(td, namespace, e.ServiceAccount); err == nil {
			i.identity = id.String()
		}
	}
	return i
}

// exportTo turns Istio's list into namespaces; nil means every one.
func exportTo(list []string, own string) []string {
	if len(list) == 0 || slices.Contains(list, "*") {
		return nil
	}
	out := []string{}
	for _, v := range list {
		switch v {
		case ".":
			out = append(out, own)
		case "~":
		default:
			out = append(out, v)
		}
	}
	return out
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return netip.Prefix{}, false
}
