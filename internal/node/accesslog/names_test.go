package accesslog

import (
	"testing"

	"isthmus.dev/isthmus/internal/wellknown"
)

// TestTwoNames: whoever has a certificate with several names is called by none of them.
func TestTwoNames(t *testing.T) {
	r := &record{
		tags: map[string]string{"peer": "retail", "object": "default/payments"}, toUpstream: true, cluster: "x",
	}
	for _, uri := range []string{"spiffe://retail.example/ns/a/sa/b", "spiffe://retail.example/ns/a/sa/c"} {
		if err := tlsProperties[5](r, field{bytes: message1(message1([]byte(uri)))}); err != nil {
			t.Fatal(err)
		}
		if r.names == 1 {
			if e := fromTCP(wellknown.LogIngress, r); e.Caller != uri || e.Verdict != "allowed" {
				t.Errorf("one name: %+v", e)
			}
		}
	}
	e := fromTCP(wellknown.LogIngress, r)
	if e.Caller != "" || e.Verdict != "denied" ||
		e.Reason != "the certificate has more than one URI name, so that nobody knows whose it is" {
		t.Errorf("two names: %+v", e)
	}
	// Nor does it vouch for anybody.
	r.assertedCaller = "spiffe://retail.example/ns/shop/sa/till"
	if e := fromHTTP(wellknown.LogIngress, r); e.Caller != "" || e.AssertedBy != "" || e.Verdict != "denied" {
		t.Errorf("two names, of a request: %+v", e)
	}
}

// message1 is a message whose field 1 has these bytes.
func message1(b []byte) []byte { return append([]byte{1<<3 | 2, byte(len(b))}, b...) }

// TestRawRefusals: what a raw connection is refused for is said in the log, and for whom a raw import has no chain.
func TestRawRefusals(t *testing.T) {
	e := fromTCP(wellknown.LogOutbound, &record{tags: map[string]string{
		"workload": "default/alice", "refused": "no service there lists the caller",
	}, local: endpoint{"203.0.113.7", 80}})
	if e.Caller != "default/alice" || e.Verdict != "denied" || e.Reason != "no service there lists the caller" ||
		e.Destination != "203.0.113.7:80" {
		t.Errorf("%+v", e)
	}
	e = fromTCP(wellknown.LogEgress, &record{
		sni: "46a8e623ee0f4bf63aac7e5eb49ec865.caller.p7100.feed.default.svc.cluster.local", flags: noRoute,
	})
	if e.Destination != "p7100.feed.default.svc.cluster.local" || e.Verdict != "denied" ||
		e.Reason != "no FederatedImport lists this caller under this name" {
		t.Errorf("%+v", e)
	}
}
