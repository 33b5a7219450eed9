// Package accesslog receives what Envoy logs: it counts what each peer mesh did, writes every boundary crossing and every
// refusal to a bounded file, and says refusals in the agent's own log.
package accesslog

import (
	"net/http"
	"slices"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"isthmus.dev/isthmus/internal/agentapi"
)

// Custom tags that the control plane's configuration may put on an entry.
const (
	TagPeer        = "peer"        // MeshPeer name, on ingress and egress entries
	TagConnection  = "connection"  // identifies the connection between the gateways: handshakes are counted by it
	TagDestination = "destination" // what was called, as a person would name it
	TagReason      = "reason"      // why it was refused, when the configuration knows
	TagCaller      = "caller"      // caller as asserted by a peer
)

// Entry is one line of the file.
type Entry struct {
	Time        time.Time         `json:"time"`
	Log         string            `json:"log"`
	Verdict     string            `json:"verdict"`
	Peer        string            `json:"peer,omitempty"`
	Caller      string            `json:"caller,omitempty"`
	Destination string            `json:"destination,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	SNI         string            `json:"sni,omitempty"`
	Remote      string            `json:"remote,omitempty"`
	Method      string            `json:"method,omitempty"`
	Authority   string            `json:"authority,omitempty"`
	Path        string            `json:"path,omitempty"` // without its query
	Code        uint32            `json:"code,omitempty"`
	BytesIn     uint64            `json:"bytesIn"`
	BytesOut    uint64            `json:"bytesOut"`
	DurationMS  float64           `json:"durationMs"`
	Tags        map[string]string `json:"tags,omitempty"`

	http             bool
	stream           string
	connection       string // tag TagConnection
	carried          bool   // TCP: reached an upstream
	handshakeFailure bool
}

// Verdicts.
const (
	verdictAllowed   = "allowed"
	verdictDenied    = "denied"    // by policy
	verdictHandshake = "handshake" // no TLS handshake
	verdictFailed    = "failed"    // allowed, but it did not work
)

// Denied says whether policy refused it or the handshake failed.
func (e *Entry) Denied() bool { return e.Verdict == verdictDenied || e.Verdict == verdictHandshake }

func fromHTTP(log string, h *accesslogv3.HTTPAccessLogEntry) Entry {
	e := fromCommon(log, h.GetCommonProperties())
	e.http = true
	if req := h.GetRequest(); req != nil {
		e.Method = strings.ToUpper(req.GetRequestMethod().String())
		e.Authority = req.GetAuthority()
		e.Path, _, _ = strings.Cut(req.GetPath(), "?")
	}
	e.Code = h.GetResponse().GetResponseCode().GetValue()
	details := h.GetResponse().GetResponseCodeDetails()
	switch {
	case e.handshakeFailure:
	case strings.Contains(details, "rbac_access_denied"), e.Code == http.StatusForbidden && details != "via_upstream":
		e.Verdict = verdictDenied
	case e.Code >= 500 && details != "via_upstream":
		e.Verdict = verdictFailed
	}
	e.Reason = firstOf(e.Reason, unless(details == "via_upstream", details))
	e.Destination = firstOf(e.Destination, e.Authority)
	return e
}

func fromTCP(log string, t *accesslogv3.TCPAccessLogEntry) Entry {
	e := fromCommon(log, t.GetCommonProperties())
	if c := t.GetConnectionProperties(); log != agentapi.LogEgress && c != nil {
		e.BytesIn, e.BytesOut = c.GetReceivedBytes(), c.GetSentBytes()
	}
	if t.GetConnectionProperties() == nil {
		e.carried = false
	}
	return e
}

func fromCommon(log string, c *accesslogv3.AccessLogCommon) Entry {
	tags := c.GetCustomTags()
	e := Entry{
		Time: c.GetStartTime().AsTime(), Log: log, Verdict: verdictAllowed,
		Peer: tags[TagPeer], connection: tags[TagConnection], stream: c.GetStreamId(),
		Caller: firstOf(tags[TagCaller], peerID(c)), Destination: firstOf(tags[TagDestination], c.GetUpstreamCluster(), c.GetTlsProperties().GetTlsSniHostname()),
		SNI: c.GetTlsProperties().GetTlsSniHostname(), Remote: remote(c),
		BytesIn: c.GetDownstreamWireBytesReceived(), BytesOut: c.GetDownstreamWireBytesSent(),
		DurationMS: float64(c.GetDuration().AsDuration().Microseconds()) / 1000,
		carried:    c.GetUpstreamCluster() != "" && c.GetUpstreamRemoteAddress() != nil,
		Tags:       tags,
	}
	if log == agentapi.LogEgress {
		e.BytesIn, e.BytesOut = c.GetUpstreamWireBytesReceived(), c.GetUpstreamWireBytesSent()
	}
	handshake := c.GetDownstreamTransportFailureReason()
	if log == agentapi.LogEgress || log == agentapi.LogOutbound {
		handshake = firstOf(handshake, tlsFailure(c.GetUpstreamTransportFailureReason()))
	}
	terminated := c.GetConnectionTerminationDetails()
	switch {
	case handshake != "":
		e.Verdict, e.handshakeFailure = verdictHandshake, true
	case strings.Contains(terminated, "rbac_access_denied"), c.GetResponseFlags().GetUnauthorizedDetails() != nil:
		e.Verdict = verdictDenied
	}
	e.Reason = firstOf(tags[TagReason], handshake, terminated, c.GetUpstreamTransportFailureReason())
	return e
}

// tlsFailure is the reason when it is one of TLS, and not for example a refused connection.
func tlsFailure(reason string) string {
	if strings.HasPrefix(reason, "TLS_error") || strings.Contains(reason, "verify") {
		return reason
	}
	return ""
}

func peerID(c *accesslogv3.AccessLogCommon) string {
	for _, n := range c.GetTlsProperties().GetPeerCertificateProperties().GetSubjectAltName() {
		if n.GetUri() != "" {
			return n.GetUri()
		}
	}
	return ""
}

func remote(c *accesslogv3.AccessLogCommon) string {
	return c.GetDownstreamDirectRemoteAddress().GetSocketAddress().GetAddress()
}

func firstOf(texts ...string) string {
	if i := slices.IndexFunc(texts, func(s string) bool { return s != "" }); i >= 0 {
		return texts[i]
	}
	return ""
}

func unless(not bool, text string) string {
	if not {
		return ""
	}
	return text
}
