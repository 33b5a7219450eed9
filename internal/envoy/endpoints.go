package envoy

import (
	"cmp"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/view"
)

// Endpoints returns one endpoint set as an EDS resource. near lists the workloads that the receiving proxy serves
// itself, for a proxy's own form of the set.
func Endpoints(set model.EndpointSet, eps []model.Endpoint, near ...model.WorkloadID) *Resource {
	return newResource(EndpointType, SetName(set), assignment(SetName(set), eps, near...), nil)
}

// EndpointsFor returns an endpoint set of a view, in the proxy's own form or the shared one.
func EndpointsFor(v *view.View, set model.EndpointSet, all map[model.EndpointSet][]model.Endpoint) *Resource {
	eps := all[set.Shared()]
	if set.Proxy == "" {
		return Endpoints(set, eps)
	}
	return Endpoints(set, eps, v.Local[set.Shared()]...)
}

func assignment(name string, eps []model.Endpoint, near ...model.WorkloadID) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	if len(eps) == 0 {
		return a
	}
	var l *endpointv3.LocalityLbEndpoints
	for n, e := range eps {
		if n == 0 || e.Group != eps[n-1].Group {
			l = locality(e.Group)
			a.Endpoints = append(a.Endpoints, l)
		}
		ep := endpoint(e)
		if slices.Contains(near, e.By) {
			ep = handedEndpoint(e)
		}
		if !e.Healthy {
			ep.HealthStatus = corev3.HealthStatus_UNHEALTHY
		}
		if e.Weight > 1 {
			ep.LoadBalancingWeight = u32(e.Weight)
		}
		l.LbEndpoints = append(l.LbEndpoints, ep)
	}
	return a
}

func endpoint(e model.Endpoint) *endpointv3.LbEndpoint {
	host := e.Host
	if e.Addr.IsValid() {
		host = e.Addr.String()
	}
	ep := at(socket(host, e.Port))
	if e.Group != (model.Group{}) {
		labelEndpoint(ep, e.Group)
	}
	if e.Other.IsValid() {
		ep.GetEndpoint().AdditionalAddresses = []*endpointv3.Endpoint_AdditionalAddress{
			{Address: socket(e.Other.String(), e.Port)},
		}
	}
	return ep
}

func at(a *corev3.Address) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
	}
}

func socket(host string, port uint16) *corev3.Address { return inside("", host, uint32(port)) }

// label returns the key by which the endpoints of a group are found.
func label(g model.Group) string { return cmp.Or(g.SNI, g.Name) }

// locality returns an empty locality for one group. The zero group gets neither a name nor a weight.
func locality(g model.Group) *endpointv3.LocalityLbEndpoints {
	l := &endpointv3.LocalityLbEndpoints{Priority: g.Priority}
	if g.Name != "" {
		l.Locality = &corev3.Locality{Region: g.Name}
		l.LoadBalancingWeight = u32(max(g.Weight, 1))
	}
	return l
}

// labelEndpoint adds the group's label and, for the log, the peer's name to an endpoint's metadata.
func labelEndpoint(ep *endpointv3.LbEndpoint, g model.Group) {
	fields := map[string]*structpb.Struct{"envoy.transport_socket_match": peerMetadata(label(g))}
	switch {
	case g.SNI != "":
		ep.GetEndpoint().Hostname = g.SNI
		fields[hostTags] = peerMetadata(g.Name)
	case g.Name == model.OwnEndpoints:
		ep.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	ep.Metadata = &corev3.Metadata{FilterMetadata: fields}
}

func peerMetadata(key string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"peer": structpb.NewStringValue(key)}}
}
