//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// testLogAndCounts: each refusal is written down with who, on whose word and why, and counted for the right peer.
func (g *gateway) testLogAndCounts(t *testing.T) {
	north, south, borrower := g.peers["north"], g.peers["south"], g.peers["borrower"]
	was := g.settled(t)
	before := refusedLines(t)

	denied := north.client("api")
	denied.asserts = []string{"spiffe://north.example/ns/default/sa/nosy"}
	if a, _ := g.ask(denied, "GET", "/public"); a.Code != http.StatusForbidden {
		t.Fatalf("denied: %d", a.Code)
	}
	for range 2 {
		must(t, g.refused(south.client("api").with(north.own)))
	}
	must(t, g.refused(north.client("api").with(north.ca.leaf(t, "spiffe://north.example/ns/default/sa/web"))))
	must(t, g.refused(gwCaller{
		from: "192.0.2.11", to: gwIngress, sni: "nothing.default.north.fed.home.example",
		cert: north.own,
	}))
	if a, _ := g.ask(g.caller("other", "p9080.billing"), "GET", "/x"); a.Code != http.StatusForbidden {
		t.Fatalf("egress: %d", a.Code)
	}
	borrower.server.set(borrower.serverTLS(north.own), false)
	if a, _ := g.ask(g.caller("web", "p80.borrower"), "GET", "/"); a.Code != http.StatusServiceUnavailable {
		t.Fatalf("borrower: %d", a.Code)
	}
	borrower.server.set(borrower.serverTLS(borrower.own), false)

	for range 2 { // until south had its turn: it gets every fourth
		for range 20 {
			_, err := g.ask(g.caller("web", "p80.split"), "GET", "/")
			must(t, err)
		}
	}

	want := map[logLine]int{
		{
			"ingress", "handshake", "north", "spiffe://north.example/ns/default/sa/web", "", "certificate",
			north.asks("api"),
		}: 1,
		{
			"ingress", "denied", "north", "spiffe://north.example/ns/default/sa/nosy", north.gatewayID(),
			"no rule of the FederatedExport allows it", "default/api",
		}: 1,
		{
			"ingress", "handshake", "south", north.gatewayID(), "", "certificate",
			south.asks("api"),
		}: 2,
		{
			"ingress", "denied", "", "", "", "nothing is offered under this name",
			"nothing.default.north.fed.home.example",
		}: 1,
		{
			"egress", "denied", "north", "spiffe://home.example/ns/default/sa/other", "",
			"the FederatedImport does not list the caller", "default/billing",
		}: 1,
		{
			"egress", "handshake", "borrower", gwWebID, "", "certificate",
			"default/borrower",
		}: 1,
	}
	eventually(t, 5*time.Second, func() error {
		got := refusedLines(t)
		for l, n := range before {
			if got[l] -= n; got[l] == 0 {
				delete(got, l)
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("the log says\n%s\nwant\n%s", tell(got), tell(want))
		}
		return nil
	})
	eventually(t, 10*time.Second, func() error {
		for peer, add := range map[string][3]uint64{
			"north": {1, 2, 0}, "south": {2, 0, 0}, "east": {0, 0, 0},
			"borrower": {1, 0, 0},
		} {
			c := g.counts(t, peer)
			if n := c.Requests - was[peer][2]; n > 0 && n < 40 &&
				(peer == "north" && n > 20 || peer == "south" && n < 20) {
				add[2] = n // of those that went to either
			}
			if got := [3]uint64{
				c.HandshakesFailed - was[peer][0], c.Denials - was[peer][1],
				c.Requests - was[peer][2],
			}; got != add {
				return fmt.Errorf("%s: failed handshakes, denials, requests grew by %v, want %v", peer, got, add)
			}
		}
		n, s := g.counts(t, "north").Requests-was["north"][2], g.counts(t, "south").Requests-was["south"][2]
		if n+s != 40 || n == 40 {
			return fmt.Errorf("of 40 requests to two peers %d are counted for the one and %d for the other", n, s)
		}
		return nil
	})
}

// logLine is what an entry of the access log says, but for when.
type logLine struct{ log, verdict, peer, caller, assertedBy, reason, destination string }

// refusedLines is what was refused so far, or failed.
func refusedLines(t *testing.T) map[logLine]int {
	t.Helper()
	out := map[logLine]int{}
	for _, e := range accessLog(t) {
		s := func(k string) string { v, _ := e[k].(string); return v }
		reason := s("reason")
		if strings.Contains(strings.ToLower(reason), "certificate") {
			reason = "certificate"
		}
		l := logLine{s("log"), s("verdict"), s("peer"), s("caller"), s("assertedBy"), reason, s("destination")}
		// what control planes say to each other is not for this test
		if l.verdict != "allowed" && !strings.HasPrefix(l.destination, "control.") {
			out[l]++
		}
	}
	return out
}

// settled is the counts once nothing is under way any more.
func (g *gateway) settled(t *testing.T) map[string][3]uint64 {
	t.Helper()
	var last map[string][3]uint64
	for since := time.Now(); time.Since(since) < 3500*time.Millisecond; waittest.Pace(100 * time.Millisecond) {
		now := map[string][3]uint64{}
		for _, p := range []string{"north", "south", "east", "borrower"} {
			c := g.counts(t, p)
			now[p] = [3]uint64{c.HandshakesFailed, c.Denials, c.Requests}
		}
		if !maps.Equal(now, last) {
			since, last = time.Now(), now
		}
	}
	return last
}

func tell[K comparable](m map[K]int) string {
	var out []string
	for k, n := range m {
		out = append(out, fmt.Sprintf("%d × %+v", n, k))
	}
	return strings.Join(slices.Sorted(slices.Values(out)), "\n")
}
