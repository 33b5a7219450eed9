//go:build e2e

package e2e

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// testTwoNames: a certificate that names the peer's gateway and somebody else is nobody's, whichever name comes first.
func (g *gateway) testTwoNames(t *testing.T) {
	north := g.peers["north"]
	with := func(ids ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, id := range ids {
				u, err := url.Parse(id)
				must(t, err)
				c.URIs = append(c.URIs, u)
			}
		}
	}
	const other = "spiffe://north.example/ns/default/sa/alias"
	api, bank := g.api.seen(), g.bank.seen()
	for name, ids := range map[string][]string{
		"another beside": {north.gatewayID(), other}, "another first": {other, north.gatewayID()},
		"itself twice": {north.gatewayID(), north.gatewayID()}, "ours": {north.gatewayID(), gwGatewayID},
	} {
		cert := north.ca.leaf(t, north.gatewayID(), with(ids...))
		for _, c := range []gwCaller{
			north.client("api"), north.client("raw"),
			{from: north.addr, to: gwIngress, sni: "control.north.fed.home.example", peer: north},
		} {
			if err := g.refused(c.with(cert)); err != nil {
				t.Errorf("%s, %s: %v", name, c.sni, err)
			}
		}
		if text, err := g.silent(north.client("raw").with(cert), 2*time.Second); text != "" || err == nil ||
			isTimedOut(err) {
			t.Errorf("%s: waiting for the server to speak: %q %v", name, text, err)
		}
	}
	if got := g.api.since(api); len(got.Requests) > 0 {
		t.Errorf("the workload was asked: %+v", got)
	}
	if got := g.bank.since(bank); got.Shaken > 0 || got.Read != "" {
		t.Errorf("the raw workload was spoken to: %+v", got)
	}
	if _, err := g.ask(north.client("api"), "GET", "/public"); err != nil {
		t.Errorf("one name: %v", err)
	}
	eventually(t, 10*time.Second, func() error {
		n := 0
		for _, e := range accessLog(t) {
			if strings.Contains(fmt.Sprint(e["caller"]), "/alias") {
				t.Fatalf("logged as one of its names: %v", e)
			}
			if e["reason"] == "the certificate has more than one URI name, so that nobody knows whose it is" &&
				e["verdict"] == "denied" && e["caller"] == nil {
				n++
			}
		}
		if n < 12 {
			return fmt.Errorf("%d refusals are logged", n)
		}
		return nil
	})
}

// testRawCallers: a caller that is added to a raw import cuts nobody; one that is removed is cut.
func (g *gateway) testRawCallers(t *testing.T) {
	text := imports()
	list := func(callers string) {
		i := strings.Index(text, "{name: feed,")
		g.write(t, "config/imports.yaml",
			text[:i]+strings.Replace(text[i:], "callers: [web]", "callers: ["+callers+"]", 1))
	}
	connected := func(who string) (l *live) {
		eventually(t, 10*time.Second, func() error {
			c := g.caller(who, "p7100.feed")
			conn, err := c.dial()
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			return err
		})
		return connectLive(t, g.caller(who, "p7100.feed"), "raw")
	}
	web := connected("web")
	list("web, other")
	other := connected("other")
	for range 40 { // longer than Envoy drains
		if err := web.works(); err != nil {
			t.Fatalf("cut when another caller came: %v", err)
		}
		waittest.Pace(100 * time.Millisecond)
	}
	list("other")
	if _, err := web.cut(time.Now().Add(10 * time.Second)); err != nil {
		t.Errorf("a caller that is no longer listed: %v", err)
	}
	if err := other.works(); err != nil {
		t.Errorf("cut when another caller went: %v", err)
	}
	list("web")
	connected("web")
}
