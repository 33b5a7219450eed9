//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// unchanged: the program sees the very lines that the client sent, and the client those of the program, but for what
// docs/requests.md names.
func unchanged(t *testing.T, c *asker, seen map[string]*recorder) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, place := range []string{"p0", "far0"} {
			name := version + " at " + place
			seen[place].taken()
			answer, err := c.unchanged(version, place, slices.Concat(passes, removed))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want := append(slices.Clone(passes), "x-forwarded-proto: http")
			host := "host: Some.Name:8090"
			if place == "far0" {
				host = "host: p0.default.svc.cluster.local"
				want = slices.DeleteFunc(want, func(l string) bool { return slices.Contains(inMeshAlone, l) })
			}
			arrived := seen[place].taken()
			if len(arrived) != 1 {
				t.Errorf("%s: arrived %q", name, arrived)
				continue
			}
			lines := strings.Split(arrived[0], "\n")
			difference(t, name+", request", lines, append(want, "GET /p?q=%41&q=a//b", host))
			difference(t, name+", answer", answer, answersOf(place))
		}
	}
}

// passes are headers that a program sees as they were sent.
var passes = []string{
	"user-agent: client/1.0 (x; y)", "accept: */*", "accept-encoding: gzip, br;q=0.5", "accept-language: de, en;q=0.7",
	"authorization: Bearer a.b.c", "cookie: a=b; c=\"d\"", "cache-control: no-cache", "if-none-match: \"x\"",
	"range: bytes=0-1",
	"origin: http://Some.Name:8090", "referer: http://Some.Name:8090/x?y",
	"content-type: text/plain; charset=\"utf-8\"",
	"x-multi: 1", "x-multi: 2", "x-empty: ", "x-spaced: a  b	c", "x-latin: \xe9", "x-list: a,b , c",
	"date: Thu, 01 Jan 2026 00:00:00 GMT",
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=1,b=2", "b3: 1-2-1",
	"x-b3-traceid: 1",
	"x-request-id: Req-1_2.3", "x-correlation-id: 1", "max-forwards: 3", "pragma: no-cache", "priority: u=1", "dnt: 1",
	"from: a@example.com", "x-requested-with: XMLHttpRequest", "upgrade-insecure-requests: 1", "te: trailers",
	"x-forwarded-for: 192.0.2.1, 10.0.0.1", "forwarded: for=192.0.2.1", "via: 1.1 proxy", "x-real-ip: 192.0.2.1",
	"x-forwarded-port: 8090",
	"x-forwarded-prefix: /x", "baggage: a=b",
}

// inMeshAlone do not cross.
var inMeshAlone = []string{
	"x-forwarded-for: 192.0.2.1, 10.0.0.1", "forwarded: for=192.0.2.1", "via: 1.1 proxy", "x-real-ip: 192.0.2.1",
	"x-forwarded-port: 8090",
	"x-forwarded-prefix: /x", "baggage: a=b",
}

// removed do not pass at all.
var removed = []string{
	"x-forwarded-host: other.example", "x-forwarded-client-cert: URI=spiffe://x/y", "x-envoy-attempt-count: 3",
	"isthmus-caller: x",
	"isthmus-peer: y", "x-http-method-override: DELETE", "x-original-url: /admin",
}

// programAnswer is what the program answers.
var programAnswer = []string{
	"server: program/1.0", "date: Thu, 01 Jan 2026 00:00:00 GMT", "via: 1.1 inner", "set-cookie: a=b; Path=/",
	"set-cookie: c=d",
	"location: http://Some.Name:8090/next?x#y", "x-powered-by: program", "x-envoy-upstream-service-time: 7",
	"etag: \"x\"",
	"cache-control: no-store", "vary: accept", "x-request-id: own", "www-authenticate: Basic realm=\"x\"",
	"retry-after: 3",
	"content-length: 0", "isthmus-unavailable: true",
}

func answersOf(place string) []string {
	gone := []string{"isthmus-unavailable: true"}
	if place == "far0" {
		gone = append(gone, "server: program/1.0", "via: 1.1 inner", "x-powered-by: program",
			"x-envoy-upstream-service-time: 7")
	}
	return slices.DeleteFunc(slices.Clone(programAnswer), func(l string) bool { return slices.Contains(gone, l) })
}

func difference(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%s: %q is there, and was not sent", what, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%s: %q was sent, and is not there", what, l)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d lines, not %d", what, len(got), len(want))
	}
}

// unchanged sends headers to the letter, and returns the headers of the answer.
func (a *asker) unchanged(version, place string, headers []string) ([]string, error) {
	c, err := a.dial(place)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if version == "HTTP/1.1" {
		if _, err := io.WriteString(c, "GET /p?q=%41&q=a//b HTTP/1.1\r\nhost: Some.Name:8090\r\n"+strings.Join(headers,
			"\r\n")+"\r\n\r\n"); err != nil {
			return nil, err
		}
		status, lines, err := head(bufio.NewReader(c))
		if err == nil && status != "HTTP/1.1 200 OK" {
			err = fmt.Errorf("answered %q %q", status, lines)
		}
		return lines, err
	}
	h, err := newHTTP2Client(c)
	if err != nil {
		return nil, err
	}
	pseudo := []string{
		":method: " + http.MethodGet, ":scheme: http", ":path: /p?q=%41&q=a//b",
		":authority: Some.Name:8090",
	}
	if err := h.begin(append(pseudo, headers...), true); err != nil {
		return nil, err
	}
	m, _, err := h.rest()
	if err != nil {
		return nil, err
	}
	if m[0].PseudoValue("status") != "200" {
		return nil, fmt.Errorf("answered %v", m[0].Fields)
	}
	var lines []string
	for _, h := range m[0].RegularFields() {
		lines = append(lines, h.Name+": "+h.Value)
	}
	return lines, nil
}
