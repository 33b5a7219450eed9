package federation

import (
	"isthmus.dev/isthmus/internal/door"
)

// Names of the methods of the peering server.
const (
	peeringService  = "isthmus.peering"
	methodBundle    = "/" + peeringService + "/Bundle"
	methodNotice    = "/" + peeringService + "/Notice"
	methodCatalogue = "/" + peeringService + "/Catalogue"
	methodReadiness = "/" + peeringService + "/Readiness"
	methodProbe     = "/" + peeringService + "/Probe"
	methodInvited   = "/" + peeringService + "/Invited"
)

// Methods are the methods that peers may call. Concurrent requests are limited before any of them is read.
var Methods = door.Methods{peeringService: {
	"Bundle":    forPeers(0),
	"Notice":    forPeers(maxNotice),
	"Catalogue": forPeers(MaxCatalogueBytes),
	"Readiness": forPeers(MaxReadinessBytes),
	"Probe": {
		Who: door.PeerGateway, Rate: probePace.perSecond, Burst: probePace.burst, AtOnce: peersAtOnce,
		Action: "peer probe", Deny: notAPeer.Message,
	},
	// An invited mesh has no name here yet, and anybody can invent invitation IDs.
	"Invited": {
		Who: door.Stranger, Together: true, Bytes: MaxPeeringBytes, Rate: usualPace.perSecond, Burst: usualPace.burst,
		AtOnce: peersAtOnce, Action: "peer redeem", Deny: notAPeer.Message,
	},
}}

// forPeers returns a method for peers' control planes. All requests of a peer count together.
func forPeers(bytes int) door.Method {
	return door.Method{
		Who: door.Peer, Share: "peering", Bytes: bytes, Rate: usualPace.perSecond, Burst: usualPace.burst,
		AtOnce: peersAtOnce, Action: "peer ask", Deny: notAPeer.Message,
	}
}
