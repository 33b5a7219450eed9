package peerrules

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// MaxOffered limits the services in one catalogue.
const MaxOffered = 1000

// Offer lists what this mesh offers a peer: the exports that name the peer and whose service has the exported port.
// Sorted by namespace, name and port, without duplicates, at most MaxOffered.
func Offer(cfg *snapshot.Config, peer string) []snapshot.OfferedService {
	offered := []snapshot.OfferedService{}
	if cfg == nil {
		return offered
	}
	ports := map[portKey]corev1.ServicePort{}
	for _, e := range snapshot.Of[*v1alpha1.FederatedExport](cfg) {
		if !slices.ContainsFunc(e.Spec.To, func(to v1alpha1.ExportTo) bool { return to.Peer == peer }) {
			continue
		}
		if len(ports) == 0 {
			ports = servicePorts(cfg)
		}
		port, ok := ports[portKey{e.Namespace, e.Spec.Service, e.Spec.Port}]
		if !ok {
			continue // the compiler reports the export
		}
		offered = append(offered, snapshot.OfferedService{
			Name: cmp.Or(e.Spec.Alias, e.Spec.Service), Namespace: e.Namespace,
			Port: uint16(e.Spec.Port), Protocol: protocol(port),
		})
	}
	slices.SortFunc(offered, compareOffers)
	offered = slices.CompactFunc(offered, func(a, b snapshot.OfferedService) bool {
		// Two exports of one alias would share an SNI; the compiler refuses the second.
		return a.Namespace == b.Namespace && a.Name == b.Name
	})
	return offered[:min(len(offered), MaxOffered)]
}

func compareOffers(a, b snapshot.OfferedService) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
}

type portKey struct {
	namespace, service string
	number             int32
}

// servicePorts indexes the TCP ports of all services.
func servicePorts(cfg *snapshot.Config) map[portKey]corev1.ServicePort {
	ports := make(map[portKey]corev1.ServicePort, len(snapshot.Of[*corev1.Service](cfg)))
	for _, s := range snapshot.Of[*corev1.Service](cfg) {
		for _, p := range s.Spec.Ports {
			if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
				ports[portKey{s.Namespace, s.Name, p.Port}] = p
			}
		}
	}
	return ports
}

// protocol returns the protocol in the catalogue. Anything but HTTP is forwarded as plain TCP.
func protocol(p corev1.ServicePort) string {
	if is := model.PortProtocol(p.AppProtocol, p.Name); is.IsHTTP() {
		return is.String()
	}
	return model.TCP.String()
}
