package agents

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
)

// Limits on one message, by its content.
const (
	maxSmall  = 32 << 10 // names, a token, a certificate request
	maxReport = 4 << 20  // enough for a node with the maximum number of workloads
	maxAsked  = 4 << 20  // an Envoy's subscriptions and the versions that it has
)

// Methods are the methods of agents and their Envoys.
var Methods = door.Methods{
	agentapi.Service: {
		"Attest": {
			Who: door.Stranger, Deny: "who joins shows a token and no certificate",
			Bytes: maxSmall, AtOnce: 128, InAll: 1024, Life: 5 * time.Second, Action: "node join", SelfRecorded: true,
		},
		"Sign": forNodes("sign", maxSmall, 64),
		"Sync": forNodes("sync", maxReport, 512),
		"Try":  forNodes("try", maxSmall, 8),
	},
	discoveryv3.AggregatedDiscoveryService_ServiceDesc.ServiceName: {
		"DeltaAggregatedResources":  forNodes("discovery", maxAsked, 512),
		"StreamAggregatedResources": {Action: "discovery", Deny: "only incremental discovery is served"},
	},
}

func forNodes(action string, bytes, atOnce int) door.Method {
	return door.Method{
		Who: door.Node, Bytes: bytes, AtOnce: atOnce, Action: action, Deny: "it takes the certificate of a node",
	}
}
