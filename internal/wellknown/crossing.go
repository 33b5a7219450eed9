package wellknown

// Fields of the line that a gateway's Envoy logs for each request that crosses the boundary or is refused there: the
// body of an OpenTelemetry log record. They are in this order, separated by CrossingSeparator, which no header value
// and no name can contain; an absent value is "-". Formatting such a line costs Envoy a third of what an entry of its
// own access log protocol does, which holds every field that there is.
const (
	CrossingLog         = iota // LogIngress or LogEgress
	CrossingPeer               // MeshPeer that may serve or send it
	CrossingServedBy           // MeshPeer that served it
	CrossingObject             // export or import
	CrossingSNI                // name asked for in the handshake
	CrossingClient             // URIs in the client's certificate, separated by commas
	CrossingFingerprint        // of that certificate
	CrossingNotAfter           // of that certificate
	CrossingFrom               // the client's address and port
	CrossingUpstreamAt         // address and port of this side of the connection to the upstream
	CrossingTook               // µs until the response was sent
	CrossingLasted             // ms until the request ended, whatever the outcome
	CrossingReceived           // bytes from the peer's mesh, as they were on the wire
	CrossingSent               // bytes to it
	CrossingMethod
	CrossingAuthority
	CrossingPath     // with its query
	CrossingAsserted // caller that the peer's gateway asserts; ingress only
	CrossingStatus
	CrossingDetails
	CrossingFlags    // Envoy's response flags, separated by commas
	CrossingUpstream // why the transport to the upstream failed; the last field, because it is the library's text
	CrossingFields   // how many there are
)

// CrossingSeparator separates the fields.
const CrossingSeparator = "\n"
