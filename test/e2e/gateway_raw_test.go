//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// testRawRequests sends the corpus of requests that servers read differently through a valid peer's connection.
// "strict" allows GET and POST of /public alone; "open" passes everything that is not ambiguous by itself.
func (g *gateway) testRawRequests(t *testing.T) {
	north := g.peers["north"]
	get := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: HOST\r\n" }
	for _, c := range []struct {
		name, request string
		codes         []int // that strict may answer; 0 is none at all
		ambiguous     bool  // refused by open too
	}{
		{"1 double slash", get("//admin"), []int{403}, false},
		{"2 dot", get("/./admin"), []int{403}, false},
		{"3 dot dot", get("/public/../admin"), []int{403}, false},
		{"4 escaped letter", get("/%61dmin"), []int{403}, false},
		{"5 escaped dot dot", get("/public/%2e%2e/admin"), []int{403}, false},
		{"6 escaped slash", get("/x%2f..%2fadmin"), []int{400}, true},
		{"6 escaped backslash", get("/x%5c..%5cadmin"), []int{400}, true},
		{"7 backslash", get(`/public\..\admin`), []int{403}, false},
		{"8 dot dot semicolon", get("/public/..;/admin"), []int{400, 403}, false},
		{"9 semicolon", get("/;x/admin"), []int{400, 403}, true},
		{"9 semicolon after the right path", get("/public;a=1"), []int{400, 403}, true},
		{"10 doubly escaped", get("/%2561dmin"), []int{400, 403}, true},
		{"11 upper case", get("/PUBLIC"), []int{403}, false},
		{"12 overlong slash", get("/%c0%afadmin"), []int{400, 403}, true},
		{"12 overlong dot", get("/%C1%9Cadmin"), []int{400, 403}, true},
		{"13 fragment", get("/public#/admin"), []int{400}, true},
		{"14 another host", "GET /public HTTP/1.1\r\nHost: SECRET.example\r\n", []int{403, 404}, true},
		{"14 the inner host", "GET /public HTTP/1.1\r\nHost: api.default.svc.cluster.local\r\n", []int{403, 404}, true},
		{"15 another host with a dot", "GET /public HTTP/1.1\r\nHost: secret.example.\r\n", []int{403, 404}, true},
		{"15 another host with a port", "GET /public HTTP/1.1\r\nHost: secret.example:80\r\n", []int{403, 404}, true},
		{"16 two hosts", "GET /public HTTP/1.1\r\nHost: HOST\r\nHost: secret.example\r\n", []int{400, 403, 404}, true},
		{
			"16 two hosts, the other first", "GET /public HTTP/1.1\r\nHost: secret.example\r\nHost: HOST\r\n",
			[]int{400, 403, 404},
			true,
		},
		{
			"16 host in the target", "GET http://secret.example/public HTTP/1.1\r\nHost: HOST\r\n",
			[]int{400, 403, 404},
			true,
		},
		{"17 two callers in one line", get("/public") + "isthmus-caller: user,admin\r\n", []int{403}, true},
		{
			"20 CL and TE", "POST /public HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
			[]int{400},
			true,
		},
		{
			"20 two CL", "POST /public HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
			[]int{400},
			true,
		},
		{
			"20 obfuscated TE", "POST /public HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n",
			[]int{400, 501},
			true,
		},
		{
			"20 TE with a space", "POST /public HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n",
			[]int{400, 501},
			true,
		},
		{"20 zero byte", get("/admin%00"), []int{400, 403}, true},
		{"20 raw zero byte", get("/public\x00"), []int{400, 0}, true},
		{"bare line feed in a value", get("/public") + "X-A: 1\x0bx\r\n", []int{400, 0}, true},
		{"no host", "GET /public HTTP/1.1\r\n", []int{400}, true},
		{"CONNECT", "CONNECT HOST:80 HTTP/1.1\r\nHost: HOST\r\n", []int{405}, true},
		{"upgrade of another path", get("/admin") + "Connection: upgrade\r\nUpgrade: websocket\r\n", []int{403}, false},
		{
			"upgrade with a body", get("/public") + "Upgrade: x\r\nContent-Length: 1\r\nConnection: upgrade\r\n",
			[]int{400},
			true,
		},
	} {
		for _, alias := range []string{"strict", "open"} {
			if alias == "open" && !c.ambiguous {
				continue
			}
			before := g.api.seen()
			caller := north.client(alias)
			request := strings.ReplaceAll(c.request, "HOST", north.asks(alias))
			if !strings.Contains(request, "isthmus-caller: user") {
				request += "isthmus-caller: " + caller.asserts[0] + "\r\n"
			}
			a, err := g.send(caller, request+"Connection: close\r\n\r\n")
			fits := false
			for _, code := range c.codes {
				fits = fits || a.Code == code && (err == nil || code == 0)
			}
			if got := g.api.since(before); !fits || len(got.Requests) > 0 {
				t.Errorf("%s, %s: %d %v, want %v; the workload saw %+v", alias, c.name, a.Code, err, c.codes,
					got.Requests)
			}
		}
	}
	// number 19, and that all of the above failed by what was wrong in it
	for _, alias := range []string{"strict", "open"} {
		before := g.api.seen()
		if _, err := g.ask(north.client(alias), "GET", "/public", "X-Forwarded-Client-Cert: URI="+gwWebID,
			"Host: "+north.asks(alias)+":80"); err == nil {
			t.Errorf("%s: two hosts that mean the same passed", alias)
		}
		_, err := g.ask(north.client(alias), "GET", "/public", "X-Forwarded-Client-Cert: URI="+gwWebID)
		if got := g.api.since(before); err != nil || holds(got.Read, "x-forwarded-client-cert") != nil {
			t.Errorf("%s: %v; the workload read %q", alias, err, got.Read)
		}
	}
	g.smuggling(t)
}

// smuggling: what follows a request on the same connection is never taken for part of it, nor it for a second request.
func (g *gateway) smuggling(t *testing.T) {
	north := g.peers["north"].client("strict")
	before := g.api.seen()
	inner := "GET /admin HTTP/1.1\r\nHost: " + north.sni + "\r\nisthmus-caller: " + north.asserts[0] + "\r\n\r\n"
	conn, err := g.filled(north).dial()
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /public HTTP/1.1\r\nHost: %s\r\nisthmus-caller: %s\r\nContent-Length: %d\r\n\r\n%s",
		north.sni, north.asserts[0], len(inner), inner)
	fmt.Fprint(conn, inner)
	conn.SetReadDeadline(time.Now().Add(time.Second))
	b, _ := io.ReadAll(conn)
	if n := strings.Count(string(b), "HTTP/1.1 200"); n != 1 || strings.Count(string(b), "HTTP/1.1 403") != 1 {
		t.Errorf("pipelined: %q", b)
	}
	got := g.api.since(before)
	if len(got.Requests) != 1 || got.Requests[0].Method != http.MethodPost || got.Requests[0].Body != inner {
		t.Errorf("the workload saw %+v", got.Requests)
	}
}
