//go:build e2e

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func (g *gateway) testIngress(t *testing.T) {
	t.Run("what the workload sees", g.workloadSees)
	t.Run("handshakes", g.handshakes)
	t.Run("asserted callers", g.assertedCallers)
	t.Run("methods and paths", g.methodsAndPaths)
	t.Run("raw tcp", g.ingressTCP)
	t.Run("session resumption", func(t *testing.T) { g.noResumption(t, g.peers["north"].client("api"), "/public") })
}

func (g *gateway) workloadSees(t *testing.T) {
	before := g.api.seen()
	north := g.peers["north"].client("api")
	_, err := g.ask(north, "POST", "/v1/charges?n=1",
		append([]string{"X-App: kept", "Content-Length: 0"}, hostile[2:]...)...)
	must(t, err)
	got := g.api.since(before)
	if len(got.Requests) != 1 {
		t.Fatalf("%d requests arrived", len(got.Requests))
	}
	q := got.Requests[0]
	if q.Host != "api.default.svc.cluster.local" || q.Client != gwGatewayID || q.Method != "POST" ||
		q.URI != "/v1/charges?n=1" {
		t.Errorf("arrived as %+v", q)
	}
	var names []string
	for name := range q.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"Content-Length", "Isthmus-Caller", "X-App", "X-Forwarded-Proto"}; !slices.Equal(names, want) {
		t.Errorf("headers %v, want %v", names, want)
	}
	if v := strings.Join(q.Header.Values("Isthmus-Caller"), "|"); v != "spiffe://north.example/ns/default/sa/web" {
		t.Errorf("caller %q", v)
	}
}

// handshakes that must not be finished, each beside one like it that is.
func (g *gateway) handshakes(t *testing.T) {
	north, south := g.peers["north"], g.peers["south"]
	alien := newGwCA(t, "north")
	sni := func(c gwCaller, name string) gwCaller { c.sni = name; return c }
	before, bank := g.api.seen(), g.bank.seen()
	for name, c := range map[string]gwCaller{
		"another peer's certificate":   south.client("api").with(north.own),
		"another peer's name":          sni(north.client("api").with(south.own), north.asks("api")),
		"a name that is not exported":  north.client("tokens"),
		"a name exported to another":   sni(north.client("api"), south.asks("api")),
		"the service's own name":       sni(north.client("api"), "api.default.svc.cluster.local"),
		"the name in another spelling": sni(north.client("api"), "x."+north.asks("api")),
		"no name":                      sni(north.client("api"), ""),
		"our own name":                 sni(north.client("api"), "control.north"),
		"an unknown root":              north.client("api").with(alien.leaf(t, north.gatewayID())),
		"no certificate":               north.client("api").with(&tls.Certificate{}),
		"an expired certificate":       north.client("api").with(north.ca.leaf(t, north.gatewayID(), expired)),
		"a certificate of tomorrow":    north.client("api").with(north.ca.leaf(t, north.gatewayID(), future)),
		"a workload of the peer": north.client("api").with(north.ca.leaf(t,
			"spiffe://north.example/ns/default/sa/web")),
		"a name that begins like its":      north.client("api").with(north.ca.leaf(t, north.gatewayID()+"2")),
		"our gateway, by the peer's root":  north.client("api").with(north.ca.leaf(t, gwGatewayID)),
		"our workload, by the peer's root": north.client("api").with(north.ca.leaf(t, gwWebID)),
		"another peer, by the peer's root": sni(north.client("api"),
			south.asks("api")).with(north.ca.leaf(t, south.gatewayID())),
		"our own workload, from outside":     north.client("api").with(g.node.svids["web"]),
		"TLS 1.2":                            tls12(north.client("api")),
		"another peer's certificate, on TCP": sni(north.client("raw").with(south.own), north.asks("raw")),
		"a workload of the peer, on TCP": north.client("raw").with(north.ca.leaf(t,
			"spiffe://north.example/ns/default/sa/web")),
		"an expired certificate, on TCP": north.client("raw").with(north.ca.leaf(t, north.gatewayID(), expired)),
		"control, by a workload of the peer": sni(north.client("api"),
			"control.north.fed.home.example").with(north.ca.leaf(t, "spiffe://north.example/ns/default/sa/web")),
		"control, by another peer": sni(north.client("api"),
			"control.north.fed.home.example").with(south.own),
	} {
		if err := g.refused(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := g.api.since(before); got.Read != "" {
		t.Errorf("the workload read %q", got.Read)
	}
	if got := g.bank.since(bank); got.Dials != 0 {
		t.Errorf("the TCP workload was dialled %d times", got.Dials)
	}
	for name, c := range map[string]gwCaller{
		"north":                   north.client("api"),
		"north on a shouted name": sni(north.client("api"), strings.ToUpper(north.asks("api"))),
	} {
		c.host = north.asks("api")
		if _, err := g.ask(c, "GET", "/public"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.ask(south.client("api"), "GET", "/south"); err != nil {
		t.Errorf("south: %v", err)
	}
	if raw, err := gwDial("192.0.2.11", gwIngress); err == nil { // plaintext
		raw.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(raw, "GET /public HTTP/1.1\r\nHost: "+north.asks("api")+"\r\n\r\n")
		if b, err := io.ReadAll(raw); len(b) > 0 || isTimedOut(err) {
			t.Errorf("plaintext: %q %v", b, err)
		}
		raw.Close()
	}
}

func isTimedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (g *gateway) assertedCallers(t *testing.T) {
	const web = "spiffe://north.example/ns/default/sa/web"
	north := g.peers["north"]
	before := g.api.seen()
	for _, alias := range []string{"api", "open"} { // "open" passes every caller of the peer
		for name, asserts := range map[string][]string{
			"none":                              nil,
			"empty":                             {""},
			"another mesh's":                    {"spiffe://south.example/ns/default/sa/web"},
			"ours":                              {gwWebID},
			"a trust domain that begins alike":  {"spiffe://north.example.evil/ns/default/sa/web"},
			"a trust domain with another dot":   {"spiffe://northxexample/ns/default/sa/web"},
			"no SPIFFE ID":                      {"web"},
			"not the form":                      {"spiffe://north.example/web"},
			"more after the form":               {web + "/x"},
			"twice":                             {web, web},
			"first right, then ours":            {web, gwWebID},
			"first ours, then right":            {gwWebID, web},
			"two in one":                        {web + "," + gwWebID},
			"two in one, with a space":          {web + ", " + web},
			"twice, spelled differently":        {web, "SPIFFE://north.example/ns/default/sa/web"},
			"upper case scheme":                 {"SPIFFE://north.example/ns/default/sa/web"},
			"dots for a service account":        {"spiffe://north.example/ns/default/sa/.."},
			"a port":                            {"spiffe://north.example:80/ns/default/sa/web"},
			"a query":                           {web + "?x"},
			"traversal":                         {"spiffe://north.example/ns/default/sa/../web"},
			"a tab":                             {web + "\tx"},
			"right before a space and another":  {web + " " + gwWebID},
			"a name with a percent sign in it":  {"spiffe://north.example/ns/default/sa/web%2f"},
			"a namespace that is two in truth":  {"spiffe://north.example/ns/default/x/sa/web"},
			"a user before the trust domain":    {"spiffe://home.example@north.example/ns/default/sa/web"},
			"the trust domain after a fragment": {"spiffe://home.example#spiffe://north.example/ns/default/sa/web"},
		} {
			c := north.client(alias)
			c.asserts = asserts
			if a, err := g.ask(c, "GET", "/public"); err == nil || a.Code != http.StatusForbidden {
				t.Errorf("%s, %s: %d %v, want 403", alias, name, a.Code, err)
			}
		}
	}
	c := north.client("api")
	c.asserts = []string{"spiffe://north.example/ns/default/sa/other"}
	if a, err := g.ask(c, "GET", "/public"); err == nil || a.Code != http.StatusForbidden {
		t.Errorf("a caller outside the rules: %d %v", a.Code, err)
	}
	if got := g.api.since(before); len(got.Requests) > 0 {
		t.Errorf("the workload saw %+v", got.Requests)
	}
	for _, c := range []struct {
		ids  []string
		kept bool
	}{
		{[]string{"X-Request-Id: Req-1_2.3"}, true},
		{[]string{"X-Request-Id: 1", "X-Request-Id: 2"}, false},
		{[]string{"X-Request-Id: 1", "X-Request-Id: at 10.98.1.23"}, false},
		{[]string{"X-Request-Id: " + strings.Repeat("1", 129)}, false},
		{[]string{"X-Request-Id: 1", "Isthmus-Request-Id: 2"}, true},
		{[]string{"Isthmus-Request-Id: 2"}, false},
		{[]string{"X-Request-Id: caf\xc3\xa9"}, false},
		{[]string{"X-Request-Id: a\xffb"}, false}, // not UTF-8
	} {
		before := g.api.seen()
		_, err := g.ask(north.client("api"), "GET", "/public", c.ids...)
		read := strings.ToLower(g.api.since(before).Read)
		if err != nil || strings.Contains(read, "x-request-id: ") != c.kept ||
			strings.Contains(read, "isthmus-request-id") {
			t.Errorf("%q: %v; the workload read %q", c.ids, err, read)
		}
	}
	if a, err := g.ask(north.client("api"), "GET", "/public", "isthmus_caller: "+gwWebID, "trace_id: 7"); err != nil {
		t.Errorf("with an underscore: %d %v", a.Code, err)
	}
	if got := g.api.since(before); holds(got.Read, "isthmus_caller") != nil || holds(got.Read, "trace_id: 7") == nil {
		t.Errorf("with an underscore: the workload read %q", got.Read)
	}
	c = north.client("open")
	c.asserts = []string{"spiffe://north.example/ns/default/sa/other"}
	if _, err := g.ask(c, "GET", "/public"); err != nil {
		t.Errorf("another caller of the peer where every one may: %v", err)
	}
}

func (g *gateway) methodsAndPaths(t *testing.T) {
	north := g.peers["north"].client("api")
	before := g.api.seen()
	for _, r := range []struct{ method, path string }{
		{"DELETE", "/public"},
		{"PUT", "/v1/x"},
		{"get", "/public"},
		{"HEAD", "/public"},
		{"OPTIONS", "*"},
		{"TRACE", "/public"},
		{"GET", "/"},
		{"GET", "/public/x"},
		{"GET", "//public"},
		{"GET", "/publicity"},
		{"GET", "/Public"},
		{"GET", "/v1"},
		{"GET", "/v2/../v1x"},
		{"GET", "/v1/../admin"},
		{"GET", "/?/v1/x"},
		{"GET", "/admin?x=/public"},
		{"GET", "/south"},
		{"GET", "http://" + g.peers["north"].asks("api") + "/admin"},
	} {
		if a, err := g.ask(north, r.method, r.path); err == nil || a.Code < 400 || a.Code >= 500 {
			t.Errorf("%s %s: %d %v", r.method, r.path, a.Code, err)
		}
	}
	a, err := g.ask(north, "DELETE", "/public")
	want := "isthmus: the boundary of home.example refuses this request: its FederatedExport to this peer lists no such caller, method and path\n"
	if a.Code != http.StatusForbidden || a.Body != want {
		t.Errorf("the reason: %d %q %v", a.Code, a.Body, err)
	}
	if got := g.api.since(before); len(got.Requests) > 0 {
		t.Errorf("the workload saw %+v", got.Requests)
	}
	for _, path := range []string{"/public", "/public?x=/admin", "/v1/", "/v1/a/b", "/v2/../v1/x"} {
		if _, err := g.ask(north, "GET", path); err != nil {
			t.Errorf("GET %s: %v", path, err)
		}
	}
	c := g.peers["south"].client("api")
	if a, err := g.ask(c, "GET", "/public"); err == nil || a.Code != http.StatusForbidden {
		t.Errorf("what another peer may: %d %v", a.Code, err)
	}
}

func (g *gateway) ingressTCP(t *testing.T) {
	north := g.peers["north"]
	if text, err := g.silent(north.client("raw"), 2*time.Second); text != "220 bank ready\n" {
		t.Fatalf("the banner, without a word from the client: %q %v", text, err)
	}
	before := g.bank.seen()
	for name, c := range map[string]gwCaller{
		"another peer": {
			from: "192.0.2.12", to: gwIngress, sni: north.asks("raw"),
			cert: g.peers["south"].own,
		},
		"a workload of the peer": north.client("raw").with(north.ca.leaf(t,
			"spiffe://north.example/ns/default/sa/web")),
		"no certificate": north.client("raw").with(&tls.Certificate{}),
	} {
		if text, err := g.silent(c, 2*time.Second); text != "" || err == nil || isTimedOut(err) {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	if got := g.bank.since(before); got.Dials != 0 {
		t.Errorf("the workload was dialled %d times for who was refused", got.Dials)
	}
	conn, err := g.filled(north.client("raw")).dial()
	must(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	b := make([]byte, len("220 bank ready\nhello"))
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "220 bank ready\nhello" {
		t.Errorf("%q %v", b, err)
	}
}
