// Package accesslog receives Envoy's access log. It counts what each peer mesh did, writes every boundary crossing and
// every refusal to a bounded file, and reports refusals in the agent's own log.
package accesslog

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"isthmus.dev/isthmus/internal/wellknown"
)

// Custom tags that the control plane's configuration puts on entries.
const (
	tagPeer     = "peer"     // MeshPeer name
	tagChain    = "chain"    // filter chain of a boundary listener, "<peer>/…" where peers come in
	tagObject   = "object"   // export, import or service
	tagWorkload = "workload" // on inbound and outbound entries: whose they are
	tagAsserted = "asserted" // on inbound entries: the caller at a peer, as our own gateway asserts it, else "-"
)

// callerHeader carries the caller that a peer's gateway asserts.
const callerHeader = "isthmus-caller"

// Entry is one line of the file.
type Entry struct {
	Time    time.Time `json:"time"`
	Log     string    `json:"log"`
	Verdict string    `json:"verdict"`
	Class   string    `json:"class,omitempty"` // kind of refusal or failure
	Peer    string    `json:"peer,omitempty"`
	Caller  string    `json:"caller,omitempty"` // SPIFFE ID, or the workload on this node
	// who asserts the caller, when it did not come itself
	AssertedBy  string            `json:"assertedBy,omitempty"`
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
	// Repeated is how many similar refusals the line stands for when there were too many to write each.
	Repeated uint64 `json:"repeated,omitempty"`

	http             bool
	stream           string
	connection       string // between the gateways: the address of its client's end
	reachedUpstream  bool   // TCP: reached an upstream
	handshakeFailure bool
}

// Refused reports whether the call was refused here or failed, for whatever reason.
func (e *Entry) Refused() bool { return e.Verdict != verdictAllowed }

func fromHTTP(log string, r *record) Entry {
	e := fromCommon(log, r)
	e.http = true
	e.Method = core.RequestMethod_name[int32(r.method)]
	e.Authority = r.authority
	e.Path, _, _ = strings.Cut(r.path, "?")
	asserted := r.tags[tagAsserted]
	delete(r.tags, tagAsserted)
	if log == wellknown.LogIngress {
		asserted = r.assertedCaller
	}
	if asserted != "" && asserted != "-" && r.names == 1 {
		e.Caller, e.AssertedBy = asserted, e.Caller
	}
	e.Code = uint32(r.code)
	e.classify(r, judgeHTTP)
	if log != wellknown.LogInbound { // the client's Host, as nothing better is known
		e.Destination = firstOf(r.tags[tagObject], e.Authority, e.Destination)
	}
	return e
}

func fromTCP(log string, r *record) Entry {
	e := fromCommon(log, r)
	if log != wellknown.LogEgress && r.connectionReceived+r.connectionSent > 0 {
		e.BytesIn, e.BytesOut = r.connectionReceived, r.connectionSent
	}
	e.classify(r, judgeTCP)
	return e
}

func fromCommon(log string, r *record) Entry {
	e := Entry{
		Time: time.Unix(int64(r.start.seconds), int64(r.start.nanos)).UTC(), Log: log, stream: r.stream,
		Peer: peerOf(log, r.tags), Caller: r.uri, SNI: r.sni,
		Remote:      firstOf(r.direct.ip, r.remote.ip), // what Envoy handed over inside itself has no direct one
		Destination: firstOf(r.tags[tagObject], withoutCaller(r.sni), r.local.String(), r.cluster),
		BytesIn:     r.received, BytesOut: r.sent,
		DurationMS:      float64(r.duration.seconds)*1000 + float64(r.duration.nanos/1000)/1000,
		reachedUpstream: r.cluster != "" && r.toUpstream,
		Tags:            r.tags, connection: r.direct.String(),
	}
	maps.DeleteFunc(e.Tags, func(_, v string) bool { return v == "-" }) // Envoy's placeholder for nothing
	switch log {
	case wellknown.LogInbound:
		e.Destination = firstOf(r.tags[tagWorkload], e.Destination)
	case wellknown.LogOutbound:
		e.Caller = firstOf(r.tags[tagWorkload], e.Caller)
		if _, service, ok := strings.Cut(r.cluster, ">"); ok {
			e.Destination = service
		}
	case wellknown.LogEgress:
		e.connection = r.upstreamLocal.String()
		e.BytesIn, e.BytesOut = r.upstreamReceived, r.upstreamSent
	}
	return e
}

// classify sets verdict, class and reason. Faults of TLS come first; further judges the rest.
func (e *Entry) classify(r *record, further func(log string, r *record) outcome) {
	var j outcome
	switch why := failedTLS(e.Log, r); {
	case why != "":
		j, e.handshakeFailure = failedHandshake.withReason(why), true
	case r.names > 1:
		j, e.Caller = twoNames, ""
	default:
		j = further(e.Log, r)
	}
	e.Verdict, e.Class, e.Reason = j.verdict, j.class, j.reason
}

// withoutCaller takes the caller's own name off the one that it asks for on raw TCP.
func withoutCaller(sni string) string {
	if _, rest, ok := strings.Cut(sni, ".caller."); ok {
		return rest
	}
	return sni
}

// peerOf returns the peer that an entry is about. Where peers come in, the listener's own entries name it by their
// chain.
func peerOf(log string, tags map[string]string) string {
	if tags[tagPeer] != "" || log != wellknown.LogIngress {
		return tags[tagPeer]
	}
	peer, _, ok := strings.Cut(tags[tagChain], "/")
	if !ok || peer == "invite" {
		return ""
	}
	return peer
}

// String is ip:port, empty when there is none.
func (p endpoint) String() string {
	if p.ip == "" {
		return ""
	}
	return net.JoinHostPort(p.ip, strconv.FormatUint(p.port, 10))
}

func firstOf(texts ...string) string {
	if i := slices.IndexFunc(texts, func(s string) bool { return s != "" }); i >= 0 {
		return texts[i]
	}
	return ""
}
