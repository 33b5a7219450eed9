//go:build e2e

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// inside are texts that name the inside of "home"; none of them may cross.
var inside = []string{
	"10.98.", "cluster.local", "billing", "x-forwarded-f", "x-forwarded-h", "x-envoy", "x-real-ip",
	"forwarded:", "via:", "node-1", "edge-1",
}

func (g *gateway) testEgress(t *testing.T) {
	t.Run("what the peer sees", g.peerSees)
	t.Run("nothing of the inside crosses", g.nothingCrosses)
	t.Run("where a request was made", g.whereFrom)
	t.Run("caller not listed", g.callerNotListed)
	t.Run("http/2 and grpc", g.http2)
	t.Run("raw tcp", g.rawTCP)
	t.Run("weights", g.weights)
	t.Run("standby", g.standby)
	t.Run("session resumption", func(t *testing.T) { g.noResumption(t, g.caller("web", "p9080.billing"), "/") })
}

func (g *gateway) peerSees(t *testing.T) {
	north := g.peers["north"].server
	before := north.seen()
	a, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/orders?q=1", "X-App: kept")
	must(t, err)
	if a.Body != "north\n" || a.Header.Get("X-App") != "kept" {
		t.Errorf("answer %+v", a)
	}
	got := north.since(before).Requests
	if len(got) != 1 {
		t.Fatalf("%d requests arrived", len(got))
	}
	q := got[0]
	for _, c := range []struct{ what, got, want string }{
		{"SNI", q.SNI, "payments.default.home.fed.north.example"},
		{"host", q.Host, "payments.default.home.fed.north.example"},
		{"client certificate", q.Client, "spiffe://home.example/ns/isthmus-system/sa/edge"},
		{"caller", strings.Join(q.Header.Values("Isthmus-Caller"), "|"), "spiffe://home.example/ns/default/sa/web"},
		{"URI", q.URI, "/orders?q=1"},
		{"application header", q.Header.Get("X-App"), "kept"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
}

// hostile are headers that a client uses to speak in the mesh's own words, or to tell of the inside.
var hostile = []string{
	"isthmus-caller: spiffe://home.example/ns/default/sa/root",
	"Isthmus-CALLER: spiffe://home.example/ns/default/sa/root2",
	"isthmus-peer: south", "isthmus-probe: tokens.default.home.fed.north.example",
	"X-Forwarded-Client-Cert: By=spiffe://home.example/x;URI=spiffe://home.example/ns/default/sa/root",
	"X-Forwarded-For: 10.98.1.99",
	"X-Forwarded-Proto: http", "X-Forwarded-Host: api.default.svc.cluster.local", "X-Forwarded-Port: 1",
	"Forwarded: for=10.98.1.99", "Via: 1.1 node-1",
	"X-Real-IP: 10.98.1.99", "X-Request-Id: edge-1 10.98.1.99", "X-HTTP-Method-Override: DELETE",
	"X-HTTP-Method: DELETE", "X-Method-Override: DELETE",
	"X-Original-URL: /admin", "X-Rewrite-URL: /admin",
	"X-Envoy-Original-Path: /admin", "X-Envoy-External-Address: 10.98.1.99", "X-Envoy-Internal: true",
	"X-Envoy-Attempt-Count: 7",
	"X-Envoy-Peer-Metadata: bm9kZS0x", "X-Envoy-Peer-Metadata-Id: node-1", "X-Envoy-Decorator-Operation: node-1",
	"X-Envoy-Downstream-Service-Cluster: node-1",
	"X-Envoy-Downstream-Service-Node: node-1", "X-Envoy-Original-Dst-Host: 10.98.1.23:8080", "X-Envoy-Ip-Tags: node-1",
	"X-Envoy-Upstream-Alt-Stat-Name: node-1",
	"X-Envoy-Upstream-Rq-Timeout-Ms: 100000", "X-Envoy-Retry-On: 5xx", "X-Envoy-Max-Retries: 5",
	"X-Envoy-Hedge-On-Per-Try-Timeout: true", "X-Envoy-Secret: node-1",
	"X-Envoy-Force-Trace: true",
}

func (g *gateway) nothingCrosses(t *testing.T) {
	north := g.peers["north"].server
	for name, header := range map[string][]string{
		"plain request": nil, "hostile headers": hostile, "one caller header": hostile[:1],
		"odd case alone": hostile[1:2],
	} {
		before := north.seen()
		a, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/", header...)
		must(t, err)
		got := north.since(before)
		if err := holds(got.Read, inside...); err != nil {
			t.Errorf("%s: the peer's gateway read:\n%v", name, err)
		}
		if err := holds(got.Read, "isthmus-peer", "isthmus-probe", "sa/root", "override", "x-http-method",
			"x-original-url", "x-rewrite-url"); err != nil {
			t.Errorf("%s: the peer's gateway read:\n%v", name, err)
		}
		if n := strings.Count(strings.ToLower(got.Read),
			"isthmus-caller: spiffe://home.example/ns/default/sa/web\r\n"); n != 1 ||
			strings.Count(strings.ToLower(got.Read), "isthmus-caller") != 1 {
			t.Errorf("%s: the caller stands there %d times:\n%s", name, n, got.Read)
		}
		if a.Header.Get("X-App") != "kept" {
			t.Errorf("%s: the application's own header was lost: %v", name, a.Header)
		}
		for h := range a.Header {
			if holds(h, "server", "via", "x-powered-by", "x-envoy", "x-forwarded") != nil {
				t.Errorf("%s: header %s: %s came back", name, h, a.Header.Get(h))
			}
		}
	}
}

// whereFrom: the place in this mesh where a request was made does not cross; one of the outside world does.
func (g *gateway) whereFrom(t *testing.T) {
	north := g.peers["north"].server
	for value, crosses := range map[string]bool{
		"http://web.default.svc.cluster.local": false, "http://10.98.1.21:8080": false, "http://localhost:3000": false,
		"https://shop.example": true, "null": true,
	} {
		before := north.seen()
		_, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/", "Origin: "+value, "Referer: "+value+"/page?x")
		must(t, err)
		h := north.since(before).Requests[0].Header
		if got := h.Get("Origin") == value && h.Get("Referer") == value+"/page?x"; got != crosses || !crosses &&
			(h["Origin"] != nil || h["Referer"] != nil) {
			t.Errorf("%s: the peer got %v", value, h)
		}
	}
}

func (g *gateway) callerNotListed(t *testing.T) {
	north, south := g.peers["north"].server, g.peers["south"].server
	before, beforeSouth := north.seen(), south.seen()
	a, err := g.ask(g.caller("other", "p9080.billing"), "GET", "/", "isthmus-caller: "+gwWebID)
	want := "isthmus: the boundary of home.example refuses this request: the FederatedImport does not list this caller\n"
	if err == nil || a.Code != http.StatusForbidden || a.Body != want {
		t.Errorf("HTTP: %d %q %v, want 403 %q", a.Code, a.Body, err, want)
	}
	if err := g.refused(g.caller("other", "p7100.feed")); err != nil {
		t.Errorf("TCP: %v", err)
	}
	if text, err := g.silent(g.caller("other", "p7100.feed"), 2*time.Second); text != "" || err == nil {
		t.Errorf("TCP, waiting for the banner: %q %v", text, err)
	}
	if got := north.since(before); got.Read != "" || len(got.Requests) != 0 {
		t.Errorf("the peer was reached: %+v", got)
	}
	if got := south.since(beforeSouth); got.Dials != 0 {
		t.Errorf("the peer of the TCP import was dialled: %+v", got)
	}
	for name, c := range map[string]gwCaller{
		"no certificate":             g.caller("web", "p9080.billing").with(&tls.Certificate{}),
		"a peer's certificate":       g.caller("web", "p9080.billing").with(g.peers["north"].own),
		"our name by a peer's root":  g.caller("web", "p9080.billing").with(g.peers["north"].ca.leaf(t, gwWebID)),
		"our name by a peer, on TCP": g.caller("web", "p7100.feed").with(g.peers["north"].ca.leaf(t, gwWebID)),
		"another caller's, on TCP":   g.caller("web", "p7100.feed").with(g.node.svids["other"]),
		"a name that is no import":   g.caller("web", "p80.api"),
		"the control plane's name": {
			from: "10.98.1.21", to: gwEgress, sni: "control.north",
			cert: g.node.svids["web"], node: g.node,
		},
		"another port of the import": g.caller("web", "p9081.billing"),
		"TLS 1.2":                    tls12(g.caller("web", "p9080.billing")),
		"from outside": {
			from: "192.0.2.11", to: gwIngress,
			sni: "p9080.billing.default.svc.cluster.local", cert: g.node.svids["web"], node: g.node,
		},
	} {
		if err := g.refused(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.anyHost(t)
}

// anyHost: the name in the handshake says which import is meant. The Host is the caller's own affair, and the peer
// hears none of it.
func (g *gateway) anyHost(t *testing.T) {
	north := g.peers["north"].server
	for host, want := range map[string]int{
		"api.default.svc.cluster.local": 200, "BILLING.default.:9080": 200, "240.240.7.7": 200, "[100::1]:9080": 200,
		"localhost": 200, "": 200,
		"billing,api.default": 400, "web@billing": 400, "a%2eb": 400,
	} {
		before := north.seen()
		c := g.caller("web", "p9080.billing")
		a, err := g.send(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if a.Code != want {
			t.Errorf("Host %q: %d %v, want %d", host, a.Code, err, want)
		}
		for _, q := range north.since(before).Requests {
			if q.Host != "payments.default.home.fed.north.example" {
				t.Errorf("Host %q: the peer was asked for %q", host, q.Host)
			}
		}
	}
}

func tls12(c gwCaller) gwCaller {
	c.change = func(conf *tls.Config) { conf.MaxVersion = tls.VersionTLS12 }
	return c
}

func (g *gateway) http2(t *testing.T) {
	north := g.peers["north"].server
	for name, path := range map[string]string{"p9080.billing": "/", "p9090.ledger": "/grpc"} {
		before := north.seen()
		c := g.caller("web", name)
		req, err := http.NewRequest("POST", "http://"+c.host+path, strings.NewReader("a message"))
		must(t, err)
		req.Header.Set("Te", "trailers")
		req.Header.Set("Content-Type", "application/grpc")
		req.Header["Isthmus-Caller"] = []string{"spiffe://home.example/ns/default/sa/root", "x"}
		resp, err := c.client(true).Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		got := north.since(before).Requests
		if resp.StatusCode != 200 || len(got) != 1 || got[0].Proto != "HTTP/2.0" || got[0].Body != "a message" {
			t.Fatalf("%s: %d, %+v", name, resp.StatusCode, got)
		}
		if path == "/grpc" && (string(body) != "a message" || resp.Trailer.Get("Grpc-Status") != "0" ||
			got[0].Header.Get("Te") != "trailers") {
			t.Errorf("gRPC: %q, trailers %v, request %v", body, resp.Trailer, got[0].Header)
		}
		if v := strings.Join(got[0].Header["Isthmus-Caller"], "|"); v != gwWebID {
			t.Errorf("%s: caller %q", name, v)
		}
		if err := holds(fmt.Sprint(got[0].Host, got[0].Header), inside...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.grpcFails(t)
}

// grpcFails: what an application answers is an answer, and takes its source away from nobody.
func (g *gateway) grpcFails(t *testing.T) {
	c := g.caller("web", "p9090.ledger")
	client := c.client(true)
	for range 10 {
		req, err := http.NewRequest("POST", "http://"+c.host+"/grpc/fails", strings.NewReader("a message"))
		must(t, err)
		req.Header.Set("Content-Type", "application/grpc")
		resp, err := client.Do(req)
		must(t, err)
		resp.Body.Close()
		if s := resp.Header.Get("Grpc-Status"); s != "2" {
			t.Fatalf("the application's status 2 has become %q: %s", s, resp.Header.Get("Grpc-Message"))
		}
	}
}

func (g *gateway) rawTCP(t *testing.T) {
	south := g.peers["south"].server // nobody else speaks to it now
	before := south.seen()
	conn, err := g.caller("web", "p7100.feed").dial()
	must(t, err)
	defer conn.Close()
	b := make([]byte, 100)
	n, err := conn.Read(b) // before a word of ours
	if string(b[:n]) != "220 south ready\n" {
		t.Fatalf("banner %q, %v", b[:n], err)
	}
	io.WriteString(conn, "hello")
	n, err = conn.Read(b)
	if string(b[:n]) != "hello" {
		t.Errorf("echo %q, %v", b[:n], err)
	}
	if got := south.since(before); got.Read != "hello" {
		t.Errorf("the peer read %q: not the application's bytes alone", got.Read)
	}
}

func (g *gateway) weights(t *testing.T) {
	const calls = 400
	served := map[string]int{}
	web := g.caller("web", "p80.split")
	client := web.client(false)
	for range calls {
		resp, err := client.Get("http://" + web.host + "/")
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		served[string(body)]++
	}
	if n := served["north\n"]; n < 270 || n > 330 || n+served["south\n"] != calls {
		t.Errorf("3:1 became %v", served)
	}
}

// standby: the second peer serves within seconds when the first dies, and no longer than it is dead.
func (g *gateway) standby(t *testing.T) {
	by := func(want string) func() error {
		return func() error {
			a, err := g.ask(g.caller("web", "p80.standby"), "GET", "/")
			if err == nil && a.Body != want {
				err = fmt.Errorf("served by %q", a.Body)
			}
			return err
		}
	}
	eventually(t, 5*time.Second, by("north\n"))
	north := g.peers["north"]
	north.server.set(north.serverTLS(north.ca.leaf(t, north.gatewayID(), expired)), false) // nobody believes it
	began := time.Now()
	eventually(t, 5*time.Second, by("south\n"))
	t.Logf("the standby served after %v", time.Since(began).Round(time.Millisecond))
	for range 20 {
		if err := by("south\n")(); err != nil {
			t.Errorf("while the first is away: %v", err)
		}
	}
	north.server.set(north.serverTLS(north.own), false)
	began = time.Now()
	eventually(t, 10*time.Second, by("north\n"))
	t.Logf("the first served again after %v", time.Since(began).Round(time.Millisecond))
}

// counted is a session cache that says whether it was ever given a session.
type counted struct {
	tls.ClientSessionCache
	puts int
}

func (c *counted) Put(key string, cs *tls.ClientSessionState) {
	c.puts++
	c.ClientSessionCache.Put(key, cs)
}

func (g *gateway) noResumption(t *testing.T, c gwCaller, path string) {
	cache := &counted{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	c.change = func(conf *tls.Config) { conf.ClientSessionCache = cache }
	c = g.filled(c)
	for n := range 2 {
		conn, err := c.dial()
		must(t, err)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nisthmus-caller: %s\r\n\r\n", path, c.hostName(),
			strings.Join(c.asserts, ""))
		b := make([]byte, 4096)
		got, err := conn.Read(b)
		if !strings.HasPrefix(string(b[:got]), "HTTP/1.1 200") {
			t.Fatalf("%q %v", b[:got], err)
		}
		if conn.ConnectionState().DidResume {
			t.Errorf("connection %d resumed a session", n+1)
		}
		conn.Close()
	}
	if cache.puts != 0 {
		t.Errorf("%d session tickets were issued", cache.puts)
	}
}
