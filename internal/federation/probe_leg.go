package federation

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// leg is what a gateway adds to the answer of a probe.
type leg struct {
	failed, reason, at, sni    string
	connect, handshake, answer time.Duration
}

// readLeg parses "<step>=<µs> … reason=<text>". It skips what it cannot parse.
func readLeg(s string) (l leg) {
	s, l.reason, _ = strings.Cut(s, "reason=")
	l.reason = printable(l.reason, 300)
	for _, field := range strings.Fields(s) {
		key, value, _ := strings.Cut(field, "=")
		if value == "-" {
			continue
		}
		switch key {
		case "failed":
			l.failed = printable(value, 40)
		case "at":
			l.at = printable(value, 60)
		case "sni":
			l.sni = printable(value, 253)
		case "connect":
			l.connect = micros(value)
		case "handshake":
			l.handshake = micros(value)
		case "answer":
			l.answer = micros(value)
		}
	}
	return l
}

// micros parses a measured time. Measured times are positive; it returns 0 if the text is not a valid one.
func micros(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return max(time.Duration(n), 1) * time.Microsecond
}

// legBroken determines which leg between the two gateways broke, from our gateway's response code details.
func (pr *probing) legBroken(l leg) {
	has := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(l.reason, t) {
				return true
			}
		}
		return false
	}
	there := fmt.Sprintf("tell the administrators of %s: isthmus peer status there", pr.Peer)
	address := fmt.Sprintf("check that %s is their gateway's address and that this mesh's gateway reaches it (isthmus peer status %s); then %s, and isthmus status", l.at, pr.Peer, there)
	if has("TLS_error", "connection_termination", "response_timeout") {
		pr.ok(dialPeer, l.connect, l.at)
	}
	switch {
	case has("response_timeout"):
		pr.ok(shakePeer, 0, "for "+pr.Asked)
		pr.fail(passPeer, "the peer's gateway took the request and did not answer",
			there+", and the log of their gateway")
	case has("CERTIFICATE_VERIFY_FAILED"):
		pr.fail(shakePeer, "who answers at "+l.at+
			" shows a certificate that this mesh does not accept for a gateway of "+pr.Peer+
			": another root, another identity, or out of its time",
			"compare fingerprints and spec.gatewayIDs with the administrators of "+pr.Peer+
				" (isthmus peer status on both sides); if they differ, peer anew")
	case has("PROTOCOL", "WRONG_VERSION_NUMBER"):
		pr.fail(shakePeer, "who answers at "+l.at+" does not speak TLS 1.3, as every gateway does", address)
	case has("ALERT_", "connection_termination"):
		pr.fail(shakePeer,
			"the peer's gateway does not accept this mesh's gateway: it knows other roots or other gateway identities of this mesh",
			"compare fingerprints and gateway identities with the administrators of "+pr.Peer+
				" (isthmus peer status on both sides); if they differ, peer anew")
	case has("TLS_error") && pr.isImport:
		pr.fail(shakePeer, "the peer's gateway does not offer "+pr.Asked+
			": it is not exported to this mesh, or the peer has suspended or revoked this mesh",
			"isthmus peer probe "+pr.Peer+" tells which; isthmus catalogue "+pr.Peer+" shows what it offers")
	case has("TLS_error"):
		pr.fail(shakePeer,
			"the peer's gateway does not offer "+pr.Asked+": the peer has revoked or never accepted this mesh, "+
				"or its peering has ended",
			there)
	case has("connection_timeout"):
		pr.fail(dialPeer, "no connection to "+l.at+", or no handshake there, within 2 s", address)
	case has("Connection_refused"):
		pr.fail(dialPeer,
			"nobody listens at "+l.at+": the gateway is down, or opens to nobody since the peer has revoked "+
				"this mesh, its only peer",
			address)
	default:
		pr.fail(dialPeer, fmt.Sprintf("this mesh's gateway cannot reach %s (%s: %s)", l.at, l.failed, l.reason),
			address)
	}
}
