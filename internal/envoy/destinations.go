package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"isthmus.dev/isthmus/internal/model"
)

// A route with several destinations is one cluster over all of them, so that calls are shared, fail over and are tried
// again among them. Each destination has its own TLS, found by the endpoint's metadata. What is known of its health
// comes three ways: the peer's control plane says what is not ready, gateways ask each other (federation_health.go),
// and what cannot be reached is ejected.

// shared makes a cluster that of a route's destinations, of which each has its transport socket.
func shared(
	c *clusterv3.Cluster, r *model.Route, socket func(model.Destination) *corev3.TransportSocket,
) *clusterv3.Cluster {
	c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
	c.ConnectTimeout = millis(boundaryConnectTimeout)
	for _, d := range r.To {
		c.TransportSocketMatches = append(c.TransportSocketMatches, socketFor(label(d), socket(d)))
	}
	return withHealthChecks(quickToEject(c))
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
