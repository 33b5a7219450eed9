//go:build e2e

package e2e

import (
	"net/http"
	"net/url"
	"testing"
)

// ours are texts that name the inside of "home" to a peer who reads our answers.
var ours = []string{"10.98.", "cluster.local", "home.example/", "envoy", "sa/api", "sa/mask", "sa/other", "server:", "inner-", "x-forwarded", "TLS_error", "delayed_connect_error", "CERTIFICATE"}

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
		answer := talk(conn, c.method+" "+c.path+" HTTP/1.1\r\nHost: "+caller.sni+"\r\nisthmus-caller: "+caller.asserts[0]+"\r\nConnection: close\r\n\r\n")
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
	} {
		a, err := g.ask(north.client("api"), "GET", "/v1/moved?to="+url.QueryEscape(to))
		if got := a.Header["Location"]; a.Code != http.StatusFound || len(got) != 1 || got[0] != want {
			t.Errorf("a redirect to %s: %d %v %q, want %q", to, a.Code, err, got, want)
		}
	}
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
