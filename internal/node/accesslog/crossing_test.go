package accesslog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

const (
	crossedIn = "ingress\nretail\n-\ndefault/payments\npayments.default.retail.fed.cards.example\n" +
		"spiffe://retail.example/ns/isthmus-system/sa/gateway\n01ef\n2026-11-23T10:00:00.000Z\n172.31.0.9:40001\n" +
		"10.0.0.1:33012\n1300\n1\n220\n1100\nGET\npayments.default.svc.cluster.local\n/charges?card=4111111111111111\n" +
		"spiffe://retail.example/ns/default/sa/storefront\n200\nvia_upstream\n-\n-"
	failedOut = "egress\ncards\nspare\ndefault/payments\np80.payments.default.svc.cluster.local\n" +
		"spiffe://retail.example/ns/default/sa/storefront\n01ef\n2026-11-23T10:00:00.000Z\n10.1.0.5:40001\n" +
		"10.1.0.1:33012\n-\n7\n10\n20\nBREW\npayments\n/\n-\n503\n" +
		"upstream_reset_before_response_started{connection_failure}\nUF,URX\nTLS_error:|verify\nagain"
)

// exported is a message of records that began at 10:00 and a bit.
func exported(t testing.TB, lines ...string) []byte {
	t.Helper()
	scope := &logv1.ScopeLogs{}
	for _, line := range lines {
		scope.LogRecords = append(scope.LogRecords, &logv1.LogRecord{
			TimeUnixNano: uint64(time.Date(2026, 11, 22, 10, 0, 0, 123_456_789, time.UTC).UnixNano()),
			Body:         &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: line}},
			TraceId:      []byte("0123456789abcdef"), SeverityText: "x",
		})
	}
	wire, err := proto.Marshal(&logv1.LogsData{ // on the wire the same as an ExportLogsServiceRequest
		ResourceLogs: []*logv1.ResourceLogs{{ScopeLogs: []*logv1.ScopeLogs{scope}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestCrossings(t *testing.T) {
	var got []Entry
	x := export{take: func(e Entry) { got = append(got, e) }}
	if err := x.Decode(exported(t, crossedIn, failedOut)); err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{
			Time: time.Date(2026, 11, 22, 10, 0, 0, 123_456_789, time.UTC), Log: "ingress", Verdict: "allowed",
			Peer: "retail", Caller: "spiffe://retail.example/ns/default/sa/storefront",
			AssertedBy:  "spiffe://retail.example/ns/isthmus-system/sa/gateway",
			Destination: "default/payments", SNI: "payments.default.retail.fed.cards.example", Remote: "172.31.0.9",
			Method: "GET", Authority: "payments.default.svc.cluster.local", Path: "/charges", Code: 200,
			BytesIn: 220, BytesOut: 1100, DurationMS: 1.3,
			Tags: map[string]string{
				"peer": "retail", "object": "default/payments", "sni": "payments.default.retail.fed.cards.example",
				"fingerprint": "01ef", "not_after": "2026-11-23T10:00:00.000Z",
			},
		},
		{
			Time: time.Date(2026, 11, 22, 10, 0, 0, 123_456_789, time.UTC), Log: "egress", Verdict: "handshake",
			Class: "handshake", Peer: "spare", Caller: "spiffe://retail.example/ns/default/sa/storefront",
			Destination: "default/payments", Reason: "TLS_error:|verify\nagain",
			SNI: "p80.payments.default.svc.cluster.local", Remote: "10.1.0.5",
			Method: "METHOD_UNSPECIFIED", Authority: "payments", Path: "/", Code: 503,
			BytesIn: 10, BytesOut: 20, DurationMS: 7,
			Tags: map[string]string{
				"peer": "spare", "object": "default/payments", "sni": "p80.payments.default.svc.cluster.local",
				"fingerprint": "01ef", "not_after": "2026-11-23T10:00:00.000Z",
			},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Entry{})); d != "" {
		t.Error(d)
	}
	if got[0].connection != "172.31.0.9:40001" || got[1].connection != "10.1.0.1:33012" || !got[0].http {
		t.Errorf("connections %q and %q", got[0].connection, got[1].connection)
	}
	if err := x.Decode(exported(t, "ingress\nretail")); err == nil {
		t.Error("a line with two fields passed")
	}
}

// TestFlagNames: each flag that the other protocol tells has its short name here.
func TestFlagNames(t *testing.T) {
	seen := flags(0)
	for name, f := range flagNames {
		if seen&f != 0 || f&(f-1) != 0 {
			t.Errorf("%s is not one flag of its own", name)
		}
		seen |= f
	}
	if got := flagsOf("UF,URX"); got != upstreamUnreachable|retryLimit {
		t.Errorf("UF,URX is %b", got)
	}
	if got := flagsOf("-"); got != 0 {
		t.Errorf("none is %b", got)
	}
}

// FuzzCrossings: what the protobuf library reads as records is read here too, and nothing makes it panic.
func FuzzCrossings(f *testing.F) {
	f.Add(exported(f, crossedIn, failedOut))
	f.Fuzz(func(t *testing.T, wire []byte) {
		n := 0
		x := export{take: func(Entry) { n++ }}
		err := x.Decode(wire)
		var whole logv1.LogsData
		if proto.Unmarshal(wire, &whole) != nil || err != nil {
			return
		}
		records := 0
		for _, r := range whole.ResourceLogs {
			for _, s := range r.ScopeLogs {
				records += len(s.LogRecords)
			}
		}
		if n < records {
			t.Fatalf("the library reads %d records, this %d", records, n)
		}
	})
}
