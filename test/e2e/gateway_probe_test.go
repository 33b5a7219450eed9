//go:build e2e

package e2e

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (g *gateway) testProbes(t *testing.T) {
	t.Run("answered", g.probesAnswered)
	t.Run("sent", g.probesSent)
	t.Run("of false peers", g.probesOfFalsePeers)
}

// probesAnswered asks as a peer's gateway does, under the control plane's name and under an export's: it learns what a
// probe may, and reaches nothing else by that way.
func (g *gateway) probesAnswered(t *testing.T) {
	north := g.peers["north"]
	const host = "probe.north.fed.home.example"
	before := g.api.seen()
	ask := func(sni, method, path string) gwAnswer {
		c := north.client("api")
		c.sni, c.host, c.asserts = sni, host, nil
		a, err := g.ask(c, method, path)
		if a.Code == 0 {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return a
	}
	for _, c := range []struct{ sni, query, want string }{ // as many as are answered at once
		{host, "", `{"live":true}`},
		{host, "?export=" + north.asks("api"), `{"live":true,"export":"ready"}`},
		{north.asks("api"), "?export=" + north.asks("api"), `{"live":true,"export":"ready"}`},
		{north.asks("api"), "?export=" + g.peers["east"].asks("api"), `{"live":true,"export":"none"}`},
		{north.asks("api"), "?export=nothing", `{"live":true,"export":"none"}`},
	} {
		a := ask(c.sni, "GET", "/v1/probe"+c.query)
		if a.Code != 200 || strings.TrimSpace(a.Body) != c.want {
			t.Errorf("%s%s: %d %s, want %s", c.sni, c.query, a.Code, a.Body, c.want)
		}
		var names, text []string
		for name, v := range a.Header {
			names, text = append(names, name), append(text, name+": "+v[0])
		}
		slices.Sort(names)
		if want := []string{
			"Cache-Control", "Content-Length", "Content-Type", "Date",
			"Isthmus-Ingress-Leg",
		}; !slices.Equal(names, want) {
			t.Errorf("headers %v, want %v", names, want)
		}
		if err := holds(strings.Join(text, "\n"), ours...); err != nil {
			t.Error(err)
		}
		if leg := a.Header.Get("Isthmus-Ingress-Leg"); !strings.HasSuffix(leg, " sni="+c.sni) {
			t.Errorf("asked under %s, it says %q", c.sni, leg)
		}
	}
	for _, path := range []string{
		"GET /public", "POST /v1/probe", "GET /v1/probe/x", "GET /v1/bundle",
		"POST /v1/catalogue", "POST /v1/peering",
	} {
		method, path, _ := strings.Cut(path, " ")
		if a := ask(north.asks("api"), method, path); a.Code == 200 {
			t.Errorf("%s %s, under the export's name: %d %s", method, path, a.Code, a.Body)
		}
	}
	if got := g.api.since(before); got.Dials > 0 || len(got.Requests) > 0 {
		t.Errorf("the workload heard of it: %+v", got)
	}
}

func (g *gateway) probe(t *testing.T, peer string) *adminapi.PeerProbeResponse {
	t.Helper()
	r, err := adminapi.Call[adminapi.PeerProbeRequest, adminapi.PeerProbeResponse](t.Context(), g.admin, "PeerProbe",
		&adminapi.PeerProbeRequest{Peer: peer, Import: "default/" + peer})
	must(t, err)
	return r
}

// probesSent says what a peer's gateway sees of our probes: a connection for each, under the export's name, and nothing
// inner.
func (g *gateway) probesSent(t *testing.T) {
	north := g.peers["north"].server
	before := north.seen()
	for range 2 {
		if r := g.probe(t, "north"); r.Legs[5].State != adminapi.LegOK ||
			!strings.Contains(r.Legs[6].Detail, "does not answer its gateway (HTTP status 200)") {
			t.Errorf("a gateway that answers in its control plane's place: %+v", r.Legs)
		}
	}
	got := north.since(before)
	if got.Shaken != 2 || len(got.Requests) != 2 {
		t.Fatalf("%d handshakes, %d requests", got.Shaken, len(got.Requests))
	}
	q := got.Requests[0]
	if q.SNI != "north.default.home.fed.north.example" || q.Host != "probe.home.fed.north.example" ||
		q.Client != gwGatewayID || q.URI != "/v1/probe?export=north.default.home.fed.north.example" {
		t.Errorf("arrived as %+v", q)
	}
	if err := holds(got.Read, inside...); err != nil {
		t.Error(err)
	}
}

// probesOfFalsePeers probes those who are not what they should be: the handshake between the gateways is named.
func (g *gateway) probesOfFalsePeers(t *testing.T) {
	masks := g.masks(t)
	masks["stale"] = func(p *gwPeer) (*tls.Config, bool) { // the peer itself, who knows another root of ours
		conf := p.serverTLS(p.own)
		conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, p.ca.pool()
		return conf, false
	}
	const accepts, accepted, speaks = "does not accept for a gateway", "does not accept this mesh's gateway",
		"does not speak"
	for name, want := range map[string]string{
		"imposter": accepts, "borrower": accepts, "expired": accepts, "future": accepts, "unknown": accepts,
		"old": speaks, "plain": speaks, "stale": accepted,
	} {
		p := g.peers[name]
		p.server.set(masks[name](p))
		r := g.probe(t, name)
		p.server.set(p.serverTLS(p.own), false)
		if l := r.Legs[4]; l.State != adminapi.LegFailed || !strings.Contains(l.Detail, want) ||
			r.Legs[3].State != adminapi.LegOK || r.Legs[5].State != adminapi.LegUntried {
			t.Errorf("%s: %+v", name, r.Legs)
		}
	}
}
