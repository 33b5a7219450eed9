package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/model"
)

// An import is one cluster over all its sources, so that calls are shared, fail over and are tried again among them.
// Each source has its own TLS, found by the endpoint's metadata. What is known of its health comes three ways: the peer's
// control plane says what is not ready, gateways ask each other (health.go), and calls that fail eject an endpoint.

// ofSources makes a cluster share calls by the weights of sources, whatever the number of their endpoints.
func ofSources(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
	return c
}

// ofSource begins the endpoints of one source; the zero one has neither a name nor a weight.
func ofSource(s model.ImportSource) *endpointv3.LocalityLbEndpoints {
	l := &endpointv3.LocalityLbEndpoints{Priority: s.Priority}
	if s.Name != "" {
		l.Locality = &corev3.Locality{Region: s.Name}
		l.LoadBalancingWeight = u32(max(s.Weight, 1))
	}
	return l
}

// labelSource says of an endpoint how it is called and, for the log, which peer it is.
func labelSource(ep *endpointv3.LbEndpoint, s model.ImportSource) {
	key := s.Name
	fields := map[string]*structpb.Struct{}
	switch {
	case s.SNI != "":
		key = s.SNI
		ep.GetEndpoint().Hostname = s.SNI
		fields[hostTags] = peerMetadata(s.Name)
	case s.Name == model.LocalSource:
		ep.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	fields["envoy.transport_socket_match"] = peerMetadata(key)
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
