package accesslog

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/agentapi"
)

// httpLine and tcpLine are entries as they come off the wire.
func httpLine(t testing.TB, text string) *record {
	t.Helper()
	return decoded(t, text, new(accesslogv3.HTTPAccessLogEntry), httpEntry)
}

func tcpLine(t testing.TB, text string) *record {
	t.Helper()
	return decoded(t, text, new(accesslogv3.TCPAccessLogEntry), tcpEntry)
}

func decoded(t testing.TB, text string, m proto.Message, as message) *record {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := new(record)
	if err := as.read(r, wire); err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	caller  = `"tlsProperties":{"tlsSniHostname":"payments.default.retail.fed.cards.example","peerCertificateProperties":{"subjectAltName":[{"uri":"spiffe://retail.example/ns/isthmus-system/sa/gateway"}]}}`
	peerTag = `"customTags":{"peer":"retail"},"downstreamDirectRemoteAddress":{"socketAddress":{"address":"172.31.0.9","portValue":40001}}`
)

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry Entry
		want  string // verdict, class and reason
	}{
		{
			"allowed", fromHTTP("ingress", httpLine(t,
				`{"commonProperties":{`+peerTag+
					`},"response":{"responseCode":200,"responseCodeDetails":"via_upstream"}}`)),
			"allowed  ",
		},
		{"the application's own 403", fromHTTP("ingress",
			httpLine(t, `{"response":{"responseCode":403,"responseCodeDetails":"via_upstream"}}`)), "allowed  "},
		{"the application's own 503", fromHTTP("inbound",
			httpLine(t, `{"response":{"responseCode":503,"responseCodeDetails":"via_upstream"}}`)), "allowed  "},
		{"the client left", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamConnectionTermination":true}},"response":{"responseCode":0,"responseCodeDetails":"downstream_remote_disconnect"}}`)), "failed client-left the client closed its side before the answer"},
		{
			"the client left amid the answer",
			fromHTTP("outbound", httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamConnectionTermination":true}},"response":{"responseCode":200,"responseCodeDetails":"downstream_remote_disconnect"}}`)), "allowed  ",
		},
		{
			"the client left, at a gateway",
			fromHTTP("egress", httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamConnectionTermination":true}},"response":{"responseCode":0,"responseCodeDetails":"downstream_remote_disconnect"}}`)), "allowed  ",
		},
		{
			"the client left while it was tried",
			fromHTTP("outbound", httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamConnectionTermination":true}},"response":{"responseCode":503,"responseCodeDetails":"downstream_remote_disconnect"}}`)), "allowed  ",
		},
		{
			"policy", fromHTTP("inbound", httpLine(t,
				`{"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[none]"}}`)),
			"denied policy-none no policy allows it",
		},
		{
			"policy, gRPC", fromHTTP("inbound",
				httpLine(t,
					`{"response":{"responseCode":200,"responseCodeDetails":"rbac_access_denied_matched_policy[none]"}}`)),
			"denied policy-none no policy allows it",
		},
		{
			"import", fromHTTP("egress", httpLine(t,
				`{"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[none]"}}`)),
			"denied import-callers the FederatedImport does not list the caller",
		},
		{
			"export", fromHTTP("ingress", httpLine(t,
				`{"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[none]"}}`)),
			"denied export-rules no rule of the FederatedExport allows it",
		},
		{"deny policy", fromHTTP("inbound",
			httpLine(t,
				`{"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[default/deny#0]"}}`)), "denied policy-deny policy default/deny#0 denies it"},
		{"closed", fromHTTP("inbound", httpLine(t,
			`{"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[closed-by-AuthorizationPolicy-default/deny#0]"}}`)), "denied policy-closed closed: AuthorizationPolicy-default/deny is written and not in force"},
		{
			"our own answer", fromHTTP("outbound",
				httpLine(t, `{"response":{"responseCode":403,"responseCodeDetails":"direct_response"}}`)),
			"denied unlisted no service there lists the caller",
		},
		{"nobody serves the import", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"customTags":{"absent":"nobody serves this import now: peer cards is suspended"}},"response":{"responseCode":503,"responseCodeDetails":"direct_response"}}`)), "failed no-source nobody serves this import now: peer cards is suspended"},
		{
			"nobody serves the raw import",
			fromTCP("outbound", tcpLine(t,
				`{"commonProperties":{"customTags":{"absent":"nobody serves this import now: peer cards is suspended"}}}`)), "failed no-source nobody serves this import now: peer cards is suspended",
		},
		{"somebody does", fromTCP("outbound",
			tcpLine(t,
				`{"commonProperties":{"customTags":{"absent":"-"},"responseFlags":{"upstreamConnectionFailure":true}}}`)), "failed unreachable the endpoint could not be reached"},
		{"no longer listed", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"noClusterFound":true}},"response":{"responseCode":403,"responseCodeDetails":"cluster_not_found"}}`)), "denied unlisted no service there lists the caller"},
		{
			"plaintext", fromHTTP("inbound",
				httpLine(t, `{"response":{"responseCode":403,"responseCodeDetails":"direct_response"}}`)),
			"denied plaintext not mutual TLS, or not a port of this workload",
		},
		{
			"no such path", fromHTTP("ingress",
				httpLine(t, `{"response":{"responseCode":404,"responseCodeDetails":"route_not_found"}}`)),
			"denied not-offered no such host, path or method is offered",
		},
		{"path", fromHTTP("inbound", httpLine(t,
			`{"response":{"responseCode":400,"responseCodeDetails":"rbac_access_denied_matched_policy[isthmus/path-hygiene]"}}`)), "malformed path the path means different things to different servers"},
		{"host", fromHTTP("inbound", httpLine(t,
			`{"response":{"responseCode":400,"responseCodeDetails":"rbac_access_denied_matched_policy[isthmus/host-hygiene]"}}`)), "malformed host the Host means different hosts to different servers"},
		{
			"rubbish", fromHTTP("inbound", httpLine(t,
				`{"response":{"responseCode":400,"responseCodeDetails":"path_normalization_failed"}}`)),
			"malformed malformed path_normalization_failed",
		},
		{"too large", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamProtocolError":true}},"response":{"responseCode":431,"responseCodeDetails":"http1.headers_too_large"}}`)), "malformed too-large http1.headers_too_large"},
		{"protocol", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"downstreamProtocolError":true}},"response":{"responseCode":400,"responseCodeDetails":"http1.codec_error"}}`)), "malformed protocol http1.codec_error"},
		{
			"HTTP/1.0", fromHTTP("inbound",
				httpLine(t, `{"response":{"responseCode":426,"responseCodeDetails":"low_version"}}`)),
			"malformed malformed low_version",
		},
		{
			"upgrade", fromHTTP("outbound",
				httpLine(t, `{"response":{"responseCode":501,"responseCodeDetails":"upgrade_failed"}}`)),
			"malformed upgrade requests may not change to this protocol here",
		},
		{"no endpoint", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"noHealthyUpstream":true}},"response":{"responseCode":503,"responseCodeDetails":"no_healthy_upstream"}}`)), "failed no-endpoint no endpoint is ready"},
		{"no gateway of the peer", fromHTTP("egress",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"noHealthyUpstream":true}},"response":{"responseCode":503,"responseCodeDetails":"no_healthy_upstream"}}`)), "failed no-endpoint no gateway of the peer is reached, or nothing is ready there: isthmus peer probe tells which"},
		{"unreachable", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamConnectionFailure":true}},"response":{"responseCode":503,"responseCodeDetails":"upstream_reset_before_response_started{connection_failure}"}}`)), "failed unreachable upstream_reset_before_response_started{connection_failure}"},
		{"reset", fromHTTP("inbound", httpLine(t,
			`{"commonProperties":{"responseFlags":{"upstreamConnectionTermination":true}},"response":{"responseCode":503,"responseCodeDetails":"upstream_reset_before_response_started{connection_termination}"}}`)), "failed reset upstream_reset_before_response_started{connection_termination}"},
		{"reset in the middle", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamConnectionTermination":true}},"response":{"responseCode":200,"responseCodeDetails":"upstream_reset_after_response_started{connection_termination}"}}`)), "failed reset upstream_reset_after_response_started{connection_termination}"},
		{"answered by the second", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamConnectionFailure":true}},"response":{"responseCode":200,"responseCodeDetails":"via_upstream"}}`)), "allowed  "},
		{"an upgrade ended", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamConnectionTermination":true}},"response":{"responseCode":101,"responseCodeDetails":"upstream_reset_after_response_started{connection_termination}"}}`)), "allowed  "},
		{"time-out", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamRequestTimeout":true}},"response":{"responseCode":504,"responseCodeDetails":"response_timeout"}}`)), "failed timeout response_timeout"},
		{"another protocol", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamProtocolError":true}},"response":{"responseCode":502,"responseCodeDetails":"upstream_reset_before_response_started{protocol_error}"}}`)), "failed upstream-protocol upstream_reset_before_response_started{protocol_error}"},
		{
			"tcp policy", fromTCP("inbound",
				tcpLine(t,
					`{"commonProperties":{"connectionTerminationDetails":"rbac_access_denied_matched_policy[none]"}}`)),
			"denied policy-none no policy allows it",
		},
		{
			"a raw caller whom no policy names",
			fromTCP("inbound", tcpLine(t,
				`{"commonProperties":{"customTags":{"refused":"not mutual TLS, or not a port of this workload","sni":"46a8e623ee0f4bf63aac7e5eb49ec865.caller"}}}`)), "denied policy-raw policies let this caller open no raw connection to this port",
		},
		{"raw plaintext", fromTCP("inbound",
			tcpLine(t,
				`{"commonProperties":{"customTags":{"refused":"not mutual TLS, or not a port of this workload","sni":"-"}}}`)), "denied plaintext not mutual TLS, or not a port of this workload"},
		{
			"unknown name", fromTCP("ingress",
				tcpLine(t, `{"commonProperties":{"responseFlags":{"noRouteFound":true}}}`)),
			"denied not-offered nothing is offered under this name",
		},
		{"plaintext at the boundary", fromTCP("ingress",
			tcpLine(t,
				`{"commonProperties":{"downstreamTransportFailureReason":"TLS_error|error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end","responseFlags":{"noRouteFound":true}}}`)), "denied not-offered nothing is offered under this name"},
		{"plaintext where it may be", fromTCP("inbound",
			tcpLine(t,
				`{"commonProperties":{"downstreamTransportFailureReason":"TLS_error|error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end"}}`)), "allowed  "},
		{"handshake", fromTCP("ingress",
			tcpLine(t,
				`{"commonProperties":{"downstreamTransportFailureReason":"TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED"}}`)), "handshake handshake TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED"},
		{"a client that left", fromTCP("egress",
			tcpLine(t, `{"commonProperties":{`+caller+
				`,"downstreamTransportFailureReason":"TLS_error:|33554464:system library:OPENSSL_internal:Broken pipe:TLS_error_end"}}`)), "allowed  "},
		{
			"one that left amid the handshake",
			fromTCP("egress", tcpLine(t,
				`{"commonProperties":{"downstreamTransportFailureReason":"TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"}}`)), "handshake handshake TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end",
		},
		{
			"peer's handshake", fromTCP("egress",
				tcpLine(t, `{"commonProperties":{"upstreamTransportFailureReason":"TLS_error:|x"}}`)),
			"handshake handshake TLS_error:|x",
		},
		{"peer away", fromTCP("egress", tcpLine(t,
			`{"commonProperties":{"upstreamTransportFailureReason":"delayed connect error: Connection refused","responseFlags":{"upstreamConnectionFailure":true}}}`)), "failed unreachable delayed connect error: Connection refused"},
		{"header", fromHTTP("inbound", httpLine(t,
			`{"response":{"responseCode":400,"responseCodeDetails":"rbac_access_denied_matched_policy[isthmus/header-lookalike]"}}`)), "malformed header a header may be read as one that a policy compares"},
		{"upgrade to another HTTP", fromHTTP("inbound",
			httpLine(t,
				`{"response":{"responseCode":400,"responseCodeDetails":"rbac_access_denied_matched_policy[isthmus/upgrade-to-http]"}}`)), "malformed upgrade no request changes to another form of HTTP or TLS"},
		{"upgrade with a body", fromHTTP("inbound",
			httpLine(t,
				`{"response":{"responseCode":400,"responseCodeDetails":"rbac_access_denied_matched_policy[isthmus/upgrade-with-body]"}}`)), "malformed upgrade an upgrade has no body"},
		{"too many at once", fromHTTP("outbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"upstreamOverflow":true}},"response":{"responseCode":503,"responseCodeDetails":"upstream_reset_before_response_started{overflow}"}}`)), "failed overflow upstream_reset_before_response_started{overflow}"},
		{"no memory left", fromHTTP("inbound",
			httpLine(t,
				`{"commonProperties":{"responseFlags":{"overloadManager":true}},"response":{"responseCode":503,"responseCodeDetails":"overload"}}`)), "failed overload overload"},
		{
			"whatever else", fromHTTP("inbound",
				httpLine(t, `{"response":{"responseCode":500,"responseCodeDetails":"internal_error"}}`)),
			"failed failed internal_error",
		},
		{
			"a large body", fromHTTP("inbound",
				httpLine(t, `{"response":{"responseCode":413,"responseCodeDetails":"request_payload_too_large"}}`)),
			"malformed too-large request_payload_too_large",
		},
		{
			"raw, not listed", fromTCP("outbound",
				tcpLine(t, `{"commonProperties":{"customTags":{"refused":"no service there lists default/web"}}}`)),
			"denied unlisted no service there lists default/web",
		},
		{
			"raw, a caller whom no import names",
			fromTCP("egress", tcpLine(t,
				`{"commonProperties":{"tlsProperties":{"tlsSniHostname":"46a8e623ee0f4bf63aac7e5eb49ec865.caller.tokens.default"},"responseFlags":{"noRouteFound":true}}}`)), "denied import-callers no FederatedImport lists this caller under this name",
		},
		{
			"raw, unauthorized", fromTCP("inbound",
				tcpLine(t,
					`{"commonProperties":{"responseFlags":{"unauthorizedDetails":{"reason":"EXTERNAL_SERVICE"}}}}`)),
			"denied policy-none no policy allows it",
		},
		{
			"the server's handshake", fromTCP("outbound",
				tcpLine(t, `{"commonProperties":{"upstreamTransportFailureReason":"TLS_error:|x"}}`)),
			"handshake handshake TLS_error:|x",
		},
		{
			"not of our making", fromTCP("inbound",
				tcpLine(t, `{"commonProperties":{"upstreamTransportFailureReason":"TLS_error:|x"}}`)),
			"allowed  TLS_error:|x",
		},
		{
			"no endpoint, raw", fromTCP("outbound",
				tcpLine(t, `{"commonProperties":{"responseFlags":{"noHealthyUpstream":true}}}`)),
			"failed no-endpoint no endpoint is ready",
		},
	} {
		if got := c.entry.Verdict + " " + c.entry.Class + " " + c.entry.Reason; got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCounts(t *testing.T) {
	s := New(Config{
		Log: slog.New(slog.DiscardHandler), Path: filepath.Join(t.TempDir(), "access.log"), MaxBytes: 1 << 20,
	})
	request := httpLine(t, `{"commonProperties":{`+caller+`,`+peerTag+
		`,"downstreamWireBytesReceived":"100","downstreamWireBytesSent":"900"},"response":{"responseCode":200,"responseCodeDetails":"via_upstream"}}`)
	denied := httpLine(t, `{"commonProperties":{`+caller+`,`+peerTag+
		`},"response":{"responseCode":403,"responseCodeDetails":"rbac_access_denied_matched_policy[none]"}}`)
	connection := `{"commonProperties":{"streamId":"c1","downstreamDirectRemoteAddress":{"socketAddress":{"address":"172.31.0.9","portValue":40002}},"upstreamCluster":"tokens","upstreamRemoteAddress":{"socketAddress":{"address":"10.0.0.1"}},"customTags":{"peer":"retail"}},"connectionProperties":{"receivedBytes":"10","sentBytes":"20"}}`
	// The listener knows the peer by its chain only.
	failure := tcpLine(t,
		`{"commonProperties":{"streamId":"c2","downstreamTransportFailureReason":"x","customTags":{"chain":"retail/payments.default.retail.fed.cards.example"}}}`)
	invite := tcpLine(t, `{"commonProperties":{"streamId":"c3","customTags":{"chain":"invite/abc"}}}`)

	s.take(fromHTTP("ingress", request))
	s.take(fromHTTP("ingress", request)) // same connection
	s.take(fromHTTP("ingress", denied))
	s.take(fromTCP("ingress", tcpLine(t, connection)))
	s.take(fromTCP("ingress", tcpLine(t, connection))) // the listener's entry of the same connection
	s.take(fromTCP("ingress", failure))
	s.take(fromTCP("ingress", invite))
	s.take(fromHTTP("inbound", denied))  // not a boundary
	s.take(fromHTTP("inbound", request)) // neither a boundary nor a refusal

	want := map[string]agentapi.PeerCounts{
		"retail": {HandshakesOK: 2, HandshakesFailed: 1, Requests: 3, Denials: 1, BytesIn: 210, BytesOut: 1820},
	}
	if d := cmp.Diff(want, s.Peers()); d != "" {
		t.Error(d)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue()
		}
	}
	if d := cmp.Diff(map[string]float64{
		"isthmus_access_log_lost_total":                      0,
		"isthmus_peer_handshakes_total retail failed":        1,
		"isthmus_peer_handshakes_total retail ok":            2,
		"isthmus_peer_requests_total retail":                 3,
		"isthmus_peer_denials_total retail":                  1,
		"isthmus_peer_bytes_total in retail":                 210,
		"isthmus_peer_bytes_total out retail":                1820,
		"isthmus_refusals_total policy-none inbound denied":  1,
		"isthmus_refusals_total export-rules ingress denied": 1,
		"isthmus_refusals_total handshake ingress handshake": 1,
	}, got); d != "" {
		t.Error(d)
	}
}

func TestSeenIsBounded(t *testing.T) {
	tl := newTally()
	for i := range 10 * remembered {
		tl.first(fmt.Sprint(i), "x")
	}
	if n := len(tl.seen) + len(tl.previous); n > 2*remembered {
		t.Errorf("remembers %d connections", n)
	}
	if tl.first(fmt.Sprint(10*remembered-1), "x") {
		t.Error("forgot the newest")
	}
}

func TestEntryNamesTheCallerAndLeavesOutTheQuery(t *testing.T) {
	e := fromHTTP("ingress", httpLine(t,
		`{"request":{"requestMethod":"GET","path":"/pay?card=4111111111111111","authority":"pay","requestHeaders":{"isthmus-caller":"spiffe://retail.example/ns/default/sa/storefront"}},"commonProperties":{`+caller+`}}`))
	if e.Path != "/pay" || e.Method != "GET" || e.Destination != "pay" ||
		e.Caller != "spiffe://retail.example/ns/default/sa/storefront" ||
		e.AssertedBy != "spiffe://retail.example/ns/isthmus-system/sa/gateway" {
		t.Errorf("got %+v", e)
	}
}

// The Host is the client's to choose, and makes no entry say that somebody else was called.
func TestDestinationIsNotTheClientsWord(t *testing.T) {
	for _, c := range []struct{ log, common, want string }{
		{
			"outbound", `"customTags":{"workload":"default/alice","object":"web.default.svc.cluster.local:80"}`,
			"web.default.svc.cluster.local:80",
		},
		{
			"egress",
			`"customTags":{"object":"default/billing"},"tlsProperties":{"tlsSniHostname":"p80.billing.default.svc.cluster.local"}`, "default/billing",
		},
		{"ingress", `"customTags":{"object":"default/api"}`, "default/api"},
		{"inbound", `"customTags":{"workload":"default/web"}`, "default/web"},
		{"outbound", `"customTags":{"workload":"default/alice"}`, "else.where"}, // refused: nothing else is known
	} {
		e := fromHTTP(c.log, httpLine(t, `{"commonProperties":{`+c.common+`},"request":{"authority":"else.where"}}`))
		if e.Destination != c.want || e.Authority != "else.where" {
			t.Errorf("%s: destination %q, authority %q", c.log, e.Destination, e.Authority)
		}
	}
	if e := fromTCP("outbound", tcpLine(t,
		`{"commonProperties":{"upstreamCluster":"default/alice>bank.default.svc.cluster.local:7000"}}`)); e.Destination != "bank.default.svc.cluster.local:7000" {
		t.Errorf("raw: %q", e.Destination)
	}
}

func TestRefusalsAreSaidButNotWithoutBound(t *testing.T) {
	var out bytes.Buffer
	s := New(Config{
		Log: slog.New(slog.NewTextHandler(&out, nil)), Path: filepath.Join(t.TempDir(), "access.log"),
		MaxBytes: 1 << 20,
	})
	for range 1000 {
		s.take(fromTCP("inbound", tcpLine(t,
			`{"commonProperties":{"connectionTerminationDetails":"rbac_access_denied_matched_policy[none]",`+caller+
				`}}`)))
	}
	lines := strings.Count(out.String(), "\n")
	if lines < 50 || lines > 80 {
		t.Errorf("said %d refusals of 1000", lines)
	}
	if want := `msg=refused log=inbound verdict=denied class=policy-none caller=spiffe://retail.example/ns/isthmus-system/sa/gateway`; !strings.Contains(out.String(), want) {
		t.Errorf("want %s in\n%s", want, out.String()[:300])
	}
}

func TestFileTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	f := &file{path: path, max: 1000}
	for i := range 100 {
		if err := f.write(&Entry{Log: "ingress", Reason: fmt.Sprint(i), Time: time.Unix(0, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil || st.Size() == 0 || st.Size() > 1000 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `"reason":"99"`) {
		t.Errorf("the newest entry is missing: %v", err)
	}
}

func TestRemote(t *testing.T) {
	for text, want := range map[string]string{
		`{"commonProperties":{"downstreamDirectRemoteAddress":{"socketAddress":{"address":"10.0.0.9"}},"downstreamRemoteAddress":{"socketAddress":{"address":"10.0.0.8"}}}}`:    "10.0.0.9",
		`{"commonProperties":{"downstreamDirectRemoteAddress":{"envoyInternalAddress":{"endpointId":"x"}},"downstreamRemoteAddress":{"socketAddress":{"address":"10.0.0.8"}}}}`: "10.0.0.8",
	} {
		if e := fromTCP("inbound", tcpLine(t, text)); e.Remote != want {
			t.Errorf("got %q, want %q", e.Remote, want)
		}
	}
}
