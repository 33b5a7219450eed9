//go:build e2e

package e2e

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// ours are texts that name the inside of "home" to a peer who reads our answers.
var ours = []string{
	"10.98.", "cluster.local", "home.example/", "envoy", "sa/api", "sa/mask", "sa/other", "server:",
	"inner-", "x-forwarded", "TLS_error", "delayed_connect_error", "CERTIFICATE",
}

// testAnswers: whatever happens behind the gateway, its answer tells a peer nothing of the inside.
func (g *gateway) testAnswers(t *testing.T) {
	north := g.peers["north"]
	for _, c := range []struct {
		what, alias, method, path string
		code                      int
	}{
		{"an answer of the workload", "api", "GET", "/public", http.StatusOK},
		{"a refusal by policy", "api", "DELETE", "/public", http.StatusForbidden},
		{"a refusal by the parser", "open", "GET", "/x%2fy", http.StatusBadRequest},
		{"a refused path", "open", "GET", "/x;y", http.StatusBadRequest},
		{"a workload that does not listen", "gone", "GET", "/", http.StatusServiceUnavailable},
		{"a workload that is another", "mask", "GET", "/", http.StatusServiceUnavailable},
	} {
		caller := north.client(c.alias)
		conn, err := g.filled(caller).dial()
		must(t, err)
		answer := talk(conn, c.method+" "+c.path+" HTTP/1.1\r\nHost: "+caller.sni+"\r\nisthmus-caller: "+
			caller.asserts[0]+"\r\nConnection: close\r\n\r\n")
		conn.Close()
		if want := "HTTP/1.1 " + http.StatusText(c.code); len(answer) < 12 || answer[9:12] != statusDigits(c.code) {
			t.Errorf("%s: %q, want %s", c.what, answer, want)
		}
		if err := holds(answer, ours...); err != nil {
			t.Errorf("%s: %v\nin %q", c.what, err, answer)
		}
	}
	for to, want := range map[string]string{
		"http://api.default.svc.cluster.local/v1/next?x=1#y": "/v1/next?x=1#y",
		"http://api.default.svc.cluster.local:80/v1/next":    "/v1/next",
		"HTTPS://API.default.svc.cluster.local.:443":         "/",
		"//api.default.svc.cluster.local//elsewhere.example": "/elsewhere.example",
		"http://other.default.svc.cluster.local/v1/next":     "/v1/next",
		"/v1/next?to=http://elsewhere.example":               "/v1/next?to=http://elsewhere.example",
		"http://elsewhere.example/?next":                     "http://elsewhere.example/?next",
		"http://api/v1/next":                                 "/v1/next",
		"http://user@10.98.1.23:8080/v1/next":                "/v1/next",
		"http://[fd00::1]:8080?x":                            "/?x",
		"http://192.0.2.77/v1/next":                          "http://192.0.2.77/v1/next",
		"http:/\\api.default:80\\v1/next":                    "/v1/next",
	} {
		a, err := g.ask(north.client("api"), "GET", "/v1/moved?to="+url.QueryEscape(to))
		if got := a.Header["Location"]; a.Code != http.StatusFound || len(got) != 1 || got[0] != want {
			t.Errorf("a redirect to %s: %d %v %q, want %q", to, a.Code, err, got, want)
		}
	}
	g.namesInAnswers(t)
	g.longAnswers(t)
	// The other way: what a local caller is told of a peer names nothing of that peer but what its MeshPeer says.
	for _, name := range []string{"p9080.billing", "p80.split"} {
		a, err := g.ask(g.caller("web", name), "GET", "/")
		must(t, err)
		for h, v := range a.Header {
			if holds(h+": "+v[0], "inner-", "envoy", "server") != nil {
				t.Errorf("%s: %s: %s", name, h, v)
			}
		}
	}
}

// namesInAnswers: what programs go on by is rewritten, what is nobody's business taken off, in headers and trailers
// alike.
func (g *gateway) namesInAnswers(t *testing.T) {
	north := g.peers["north"].client("open")
	for _, c := range []struct {
		says []string
		name string
		want []string
	}{
		{
			[]string{"Content-Location: http://api.default.svc.cluster.local/v1/x"},
			"Content-Location",
			[]string{"/v1/x"},
		},
		{
			[]string{
				"Link: <http://api.default/2>; rel=next, <https://elsewhere.example/>; rel=up",
				"Link: <//10.98.1.23/css>; rel=preload",
			},
			"Link",
			[]string{"</2>; rel=next, <https://elsewhere.example/>; rel=up", "</css>; rel=preload"},
		},
		{[]string{"Refresh: 5; url=http://api.default.svc.cluster.local/later"}, "Refresh", []string{"5; url=/later"}},
		{[]string{"Refresh: 5;URL='http://api.default.svc:80'"}, "Refresh", []string{"5;URL='/'"}},
		{[]string{"Refresh: 0; https://elsewhere.example/x"}, "Refresh", []string{"0; https://elsewhere.example/x"}},
		{
			[]string{
				"Set-Cookie: a=1, x=\"y\"; Path=/; Domain=api.default.svc.cluster.local; Secure",
				"Set-Cookie: b=2; domain=.cluster.local",
				"Set-Cookie: c=3; Domain=shop.example; Path=/",
				"Set-Cookie: d=4; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly",
			},
			"Set-Cookie",
			[]string{
				"a=1, x=\"y\"; Path=/; Secure", "b=2", "c=3; Domain=shop.example; Path=/",
				"d=4; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly",
			},
		},
		{
			[]string{"Access-Control-Allow-Origin: http://api.default.svc.cluster.local:8080"},
			"Access-Control-Allow-Origin", nil,
		},
		{
			[]string{"Access-Control-Allow-Origin: https://shop.example"},
			"Access-Control-Allow-Origin",
			[]string{"https://shop.example"},
		},
		{[]string{"Alt-Svc: h2=\"inner-1:443\""}, "Alt-Svc", nil},
		{[]string{"X-Served-By: inner-1"}, "X-Served-By", nil},
		{[]string{"Proxy-Status: inner-1; error=x"}, "Proxy-Status", nil},
		{[]string{"Isthmus-Caller: spiffe://home.example/ns/default/sa/api"}, "Isthmus-Caller", nil},
		{[]string{"Isthmus-Internal: x"}, "Isthmus-Internal", nil},
		{[]string{`WWW-Authenticate: Basic realm="accounts"`}, "Www-Authenticate", []string{`Basic realm="accounts"`}},
	} {
		a, err := g.ask(north, "GET", "/v1/says?"+url.Values{"header": c.says}.Encode())
		if got := a.Header[c.name]; err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, it became %q, want %q", c.says, err, got, c.want)
		}
	}
	req, err := http.NewRequest("GET", "http://"+north.sni+"/v1/says?"+url.Values{"trailer": {
		"Location: http://api.default.svc.cluster.local/x", "X-Envoy-Peer-Metadata: inner-1", "Isthmus-Caller: inner-1",
		"Server: inner-1",
		"X-Checksum: kept",
	}}.Encode(), nil)
	must(t, err)
	req.Header.Set("Isthmus-Caller", north.asserts[0])
	resp, err := g.filled(north).client(true).Do(req)
	must(t, err)
	_, err = io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	if len(resp.Trailer) != 1 || resp.Trailer.Get("X-Checksum") != "kept" {
		t.Errorf("the trailers became %v", resp.Trailer)
	}
}

// longAnswers: what an application writes costs the gateway, which all peers wait for, no more time than its length is
// worth.
func (g *gateway) longAnswers(t *testing.T) {
	north := g.peers["north"].client("open")
	for _, c := range []struct{ much, says, name, want string }{
		{"<", "Link: …", "Link", "…"},
		{"<", "Link: …>", "Link", "…>"},
		{" ", "Set-Cookie: a=b;…x", "Set-Cookie", "a=b;…x"},
		{" ", "Set-Cookie: a=b; x…y=z", "Set-Cookie", "a=b; x…y=z"},
		{" ", "Set-Cookie: a=b; domain=x…y", "Set-Cookie", "a=b; domain=x…y"},
		{".", "Set-Cookie: a=b; domain=…x…y", "Set-Cookie", "a=b; domain=…x…y"},
		{".", "Set-Cookie: a=b; domain=…api.default…", "Set-Cookie", "a=b"},
		{"9", "Location: http://api.default:…", "Location", "/"},
		{"@", "Location: http://x…api.default/y", "Location", "/y"},
	} {
		a, err := g.ask(north, "GET", "/v1/says?"+url.Values{"header": {c.says}, "much": {c.much}}.Encode())
		want := strings.ReplaceAll(c.want, "…", strings.Repeat(c.much, 40_000))
		if got := a.Header[c.name]; err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%q of %q: %v, it became %.60q", c.says, c.much, err, got)
		}
	}
}
