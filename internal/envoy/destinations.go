package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	"isthmus.dev/isthmus/internal/model"
)

// A destination with several groups of endpoints is one cluster over all of them, so that calls are shared, fail over
// and are retried among them. Each group has its own TLS context, selected by endpoint metadata. Health is known from
// three sources: the peer's control plane reports what is not ready, gateways health-check each other
// (federation_health.go), and failing calls eject an endpoint.

// shared configures a cluster for a destination's groups, each with its own transport socket.
func shared(
	c *clusterv3.Cluster, d *model.Destination, socket func(model.Group) *corev3.TransportSocket,
) *clusterv3.Cluster {
	c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
		LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
	}
	c.ConnectTimeout = millis(boundaryConnectTimeout)
	for _, g := range d.Groups {
		c.TransportSocketMatches = append(c.TransportSocketMatches, socketFor(label(g), socket(g)))
	}
	return withHealthChecks(ejectFailing(c))
}

// socketFor selects a transport socket for endpoints with a label. nil means plaintext.
func socketFor(key string, s *corev3.TransportSocket) *clusterv3.Cluster_TransportSocketMatch {
	if s == nil {
		s = &corev3.TransportSocket{Name: "raw_buffer", ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: anyOf(&rawbufferv3.RawBuffer{}),
		}}
	}
	return &clusterv3.Cluster_TransportSocketMatch{Name: key, Match: peerMetadata(key), TransportSocket: s}
}
