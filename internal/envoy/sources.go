package envoy

import (
	"cmp"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
)

// A route with several destinations is one cluster over all of them, so that calls are shared, fail over and are tried
// again among them. Each destination has its own TLS, found by the endpoint's metadata. What is known of its health comes
// three ways: the peer's control plane says what is not ready, gateways ask each other (health.go), and calls that fail
// eject an endpoint.

// shared makes a cluster that of a route's destinations, of which each has its transport socket.
func shared(
	c *clusterv3.Cluster, r *model.Route, p model.Protocol, socket func(model.Destination) *corev3.TransportSocket,
) *clusterv3.Cluster {
	c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
	c.ConnectTimeout = millis(boundaryConnectTimeout)
	for _, d := range r.To {
		c.TransportSocketMatches = append(c.TransportSocketMatches, socketFor(label(d), socket(d)))
	}
	return withHealthChecks(quickToEject(c, p))
}

// label is by what the endpoints of a destination are found.
func label(d model.Destination) string { return cmp.Or(d.SNI, d.Name) }

// locality begins the endpoints of one destination; the zero one has neither a name nor a weight.
func locality(d model.Destination) *endpointv3.LocalityLbEndpoints {
	l := &endpointv3.LocalityLbEndpoints{Priority: d.Priority}
	if d.Name != "" {
		l.Locality = &corev3.Locality{Region: d.Name}
		l.LoadBalancingWeight = u32(max(d.Weight, 1))
	}
	return l
}

// labelEndpoint says of an endpoint how it is called and, for the log, which peer it is.
func labelEndpoint(ep *endpointv3.LbEndpoint, d model.Destination) {
	fields := map[string]*structpb.Struct{"envoy.transport_socket_match": peerMetadata(label(d))}
	switch {
	case d.SNI != "":
		ep.GetEndpoint().Hostname = d.SNI
		fields[hostTags] = peerMetadata(d.Name)
	case d.Name == model.OwnEndpoints:
		ep.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	ep.Metadata = &corev3.Metadata{FilterMetadata: fields}
}

func peerMetadata(key string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"peer": structpb.NewStringValue(key)}}
}

// socketFor is the transport socket of the endpoints that are labelled with a key; nil is plaintext.
func socketFor(key string, s *corev3.TransportSocket) *clusterv3.Cluster_TransportSocketMatch {
	if s == nil {
		s = &corev3.TransportSocket{Name: "raw_buffer", ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: anyOf(&rawbufferv3.RawBuffer{}),
		}}
	}
	return &clusterv3.Cluster_TransportSocketMatch{Name: key, Match: peerMetadata(key), TransportSocket: s}
}
