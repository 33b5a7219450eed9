package compile

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/vip"
)

// services adds the services of the namespace that get their names, oldest first.
func (u *unit) services() {
	u.part.endpoints = &map[model.EndpointSet][]model.Endpoint{}
	u.granted = map[placeKey]place{}
	for i, w := range elements(u.wanted) {
		if at := elements(u.places)[i]; !at.refused {
			u.granted[w.placeKey()] = at
		}
	}
	for age, s := range oldestFirst[*corev1.Service](u.objects) {
		u.guarded(age.key, func() { u.addService(age, s) })
	}
	for age, se := range oldestFirst[*networking.ServiceEntry](u.objects) {
		u.guarded(age.key, func() { u.addServiceEntry(age, se) })
	}
}

// meshPorts yields the TCP ports of a Service with their indices. Others do not cross the mesh; reading them caused a
// warning. A DNS alias (ExternalName) serves nothing.
func meshPorts(s *corev1.Service) iter.Seq2[int, corev1.ServicePort] {
	return func(yield func(int, corev1.ServicePort) bool) {
		for n, p := range s.Spec.Ports {
			if (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && !yield(n, p) {
				return
			}
		}
	}
}

func (u *unit) addService(age age, s *corev1.Service) {
	at, ok := u.granted[placeKey{age.key, 0}]
	if !ok {
		return
	}
	svc := &service{age: age, Service: &model.Service{
		ID:   model.ServiceID{Namespace: s.Namespace, Name: s.Name},
		Host: model.ServiceHost(s.Name, s.Namespace, u.mesh.domain),
		Refs: []model.Ref{u.ref(age.key)},
	}}
	u.put(svc, at.vip, append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...))
	backends := u.backends.selected(s.Spec.Selector)
	for n, p := range meshPorts(s) {
		port := &model.Port{Number: uint16(p.Port), Protocol: model.PortProtocol(p.AppProtocol, p.Name)}
		u.targetsNobody(age.key, fmt.Sprintf("spec.ports[%d].targetPort", n), backends, p.TargetPort, port.Number)
		u.back(svc, port, backends, func(i *instance) uint16 { return targetPort(i, p.TargetPort, port.Number) })
	}
}

// targetsNobody reports that none of the workloads behind a port has the targeted port.
func (r *report) targetsNobody(
	key snapshot.Key, field string, backends []*instance, target intstr.IntOrString, port uint16,
) {
	var have []string
	for _, i := range backends {
		number := targetPort(i, target, port)
		known := slices.Collect(maps.Values(i.ports))
		if i.workload == nil || len(known) == 0 || number != 0 && slices.Contains(known, number) {
			return // it has the port, or does not list its ports
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
	r.find(key, "ISM0302", field,
		fmt.Sprintf(
			"no workload behind it names a port %s among its own (%s): where nothing listens, every call fails", what,
			strings.Join(slices.Compact(have), ", ")))
}

// put sets a service's virtual addresses and name.
func (u *unit) put(svc *service, own netip.Addr, clusterIPs []string) {
	svc.VIP, svc.VIP6 = own, vip.Six(own)
	for _, text := range clusterIPs {
		switch ip, err := netip.ParseAddr(text); {
		case err != nil:
		case ip.Unmap().Is4():
			svc.VIP = ip.Unmap()
		default:
			svc.VIP6 = ip
		}
	}
	svc.own = svc.VIP == own && svc.VIP6 == vip.Six(own)
	u.served = append(u.served, svc)
}

// back adds a port with the instances that serve it.
func (u *unit) back(svc *service, port *model.Port, backends []*instance, target func(*instance) uint16) {
	svc.Ports = append(svc.Ports, port)
	set := model.EndpointSet{Host: svc.Host, Port: port.Number}
	heard := slices.ContainsFunc(backends, func(i *instance) bool { return i.ready && !i.silent && target(i) != 0 })
	served := make([]backing, 0, len(backends))
	endpoints := slices.Grow((*u.part.endpoints)[set], len(backends))
	for _, i := range backends {
		number := target(i)
		if number == 0 {
			continue
		}
		served = append(served, backing{i, number})
		endpoints = i.appendEndpoints(endpoints, number, i.ready && !(i.silent && heard))
		if i.workload != nil {
			u.listen(i.workload, number, port.Protocol, svc.Service)
			port.Workloads = append(port.Workloads, i.workload.ID)
		}
	}
	if len(endpoints) > 0 {
		(*u.part.endpoints)[set] = endpoints
	}
	port.Identities = identities(served)
	port.MTLS = len(port.Identities) > 0 && !svc.External && u.speaksMTLS(served)
	slices.SortFunc(port.Workloads, model.WorkloadID.Compare)
	port.Workloads = slices.Compact(port.Workloads)
	svc.admission = append(svc.admission, u.admissions(port, served))
	if svc.DNS {
		svc.resolved = append(svc.resolved, (*u.part.endpoints)[set]...)
	}
}

// admissions returns the distinct policies of a port's servers.
func (u *unit) admissions(port *model.Port, served []backing) []*model.Policies {
	var out []*model.Policies
	for _, b := range served {
		if ps := u.policiesAt(b.instance, b.number, port.Protocol.IsHTTP()); !slices.Contains(out, ps) {
			out = append(out, ps)
		}
	}
	return out
}

// backing is an instance that serves a port, and at which number.
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

// isResolved reports whether an entry's endpoints can be found.
func isResolved(se *networking.ServiceEntry) bool {
	r := se.Spec.Resolution
	return r == istio.ServiceEntry_STATIC || r == istio.ServiceEntry_DNS || r == istio.ServiceEntry_DNS_ROUND_ROBIN
}

// entryHosts yields the hosts of an entry that may be served, with their indices.
func entryHosts(se *networking.ServiceEntry) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for n, host := range se.Spec.Hosts {
			host = model.EntryHost(host)
			if isResolved(se) && !strings.HasPrefix(host, "*") && !yield(n, host) {
				return
			}
		}
	}
}

func (u *unit) addServiceEntry(age age, se *networking.ServiceEntry) {
	for n, host := range entryHosts(se) {
		if at, ok := u.granted[placeKey{age.key, n}]; ok {
			u.addServiceEntryHost(age, se, host, at.vip)
		}
	}
}

func (u *unit) addServiceEntryHost(age age, se *networking.ServiceEntry, host string, own netip.Addr) {
	svc := &service{age: age, Service: &model.Service{
		ID: model.ServiceID{Namespace: se.Namespace, Name: host}, Host: host,
		External: se.Spec.Location == istio.ServiceEntry_MESH_EXTERNAL,
		DNS:      se.Spec.Resolution != istio.ServiceEntry_STATIC,
		ExportTo: exportTo(se.Spec.ExportTo, se.Namespace),
		Refs:     []model.Ref{u.ref(age.key)},
	}}
	u.put(svc, own, nil)
	for _, a := range se.Spec.Addresses {
		if p, ok := parsePrefix(a); ok {
			svc.Prefixes = append(svc.Prefixes, p)
		}
	}
	backends := u.entryBackends(se, host)
	for _, p := range se.Spec.Ports {
		port := &model.Port{Number: uint16(p.Number), Protocol: model.ParseProtocol(p.Protocol)}
		u.back(svc, port, backends, func(i *instance) uint16 {
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

// entryBackends returns the instances that an entry's selector selects, or its inline endpoints. With resolution DNS,
// endpoints may have host names, and an entry without endpoints resolves its own host.
func (u *unit) entryBackends(se *networking.ServiceEntry, host string) []*instance {
	if se.Spec.WorkloadSelector != nil {
		return u.backends.selected(se.Spec.WorkloadSelector.Labels)
	}
	dns := se.Spec.Resolution != istio.ServiceEntry_STATIC
	if dns && len(se.Spec.Endpoints) == 0 {
		return []*instance{{namespace: se.Namespace, name: se.Name, host: host, weight: 1, ready: true}}
	}
	var out []*instance
	for _, ep := range se.Spec.Endpoints {
		i := u.entryInstance(se.Name, ep)
		if i.host == "" || dns {
			out = append(out, i)
		}
	}
	return out
}

// entryInstance returns a WorkloadEntry as an instance, with an address or a host name.
func (u *unit) entryInstance(name string, e *istio.WorkloadEntry) *instance {
	i := &instance{
		namespace: u.namespace, name: name, labels: e.Labels, weight: max(e.Weight, 1), ready: true,
		identity: u.identityOf(e.ServiceAccount),
	}
	if len(e.Ports) > 0 {
		i.ports = make(map[string]uint16, len(e.Ports))
	}
	if addr, err := netip.ParseAddr(e.Address); err == nil && addr.Zone() == "" {
		i.addrs = []netip.Addr{addr.Unmap()}
	} else {
		i.host = e.Address
	}
	for k, p := range e.Ports {
		i.ports[k] = uint16(p)
	}
	return i
}

// identityOf returns the SPIFFE ID of a service account in the namespace, or "" if it cannot have one.
func (u *unit) identityOf(serviceAccount string) string {
	id, known := u.accounts[serviceAccount]
	if !known && serviceAccount != "" {
		if made, err := spiffe.Workload(u.mesh.trustDomain, u.namespace, serviceAccount); err == nil {
			id = made.String()
		}
		u.accounts[serviceAccount] = id
	}
	return id
}

// exportTo converts Istio's list to namespaces; nil means all.
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
