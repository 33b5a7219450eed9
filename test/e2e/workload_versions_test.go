//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// versions: programs speak HTTP as they always did, and the server sees what the client sent.
func (s *shop) versions(t *testing.T) {
	s.apply(t, "web",
		allow(`[{to: [{operation: {notPaths: [/other]}}], when: [{key: "request.headers[x-role]", notValues: [admin]}]}]`))
	server := s.app("web:8080")
	within(t, 5*time.Second, "alice may call",
		func() error { return s.expect(200, s.get("alice", "web", "/protocols/plain")) })
	server.arrived()
	lines := func(n int) string { return strings.Repeat("x-filler: y\r\n", n) }
	for _, c := range []struct {
		what, raw string
		status    int
		text      string   // in the answer
		saw       []string // parts of what the application saw, which has no other request
		not       []string
	}{
		{
			"HTTP/1.0", "GET /protocols/plain HTTP/1.0\r\nhost: web\r\n\r\n", 200, "ok",
			[]string{"GET /protocols/plain HTTP/1.1\r\n"},
			nil,
		},
		{
			"HTTP/1.0 without Host", "GET /protocols/plain HTTP/1.0\r\n\r\n", 200, "ok",
			[]string{"host: web.default.svc.cluster.local:80\r\n"},
			nil,
		},
		{
			"underscores", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\ntrace_id: 7\r\nx_rol: admin\r\n\r\n", 200, "ok",
			[]string{"trace_id: 7\r\n"},
			nil,
		},
		{
			"a lookalike of what a policy compares", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\nX_Role: admin\r\n\r\n",
			400, "refuses a header", nil, nil,
		},
		{
			"lookalikes of what the mesh sets",
			"GET /protocols/plain HTTP/1.1\r\nhost: web\r\nisthmus_caller: x\r\nX_Forwarded_Client-Cert: x\r\n\r\n",
			200, "ok",
			[]string{"GET"},
			[]string{"isthmus_caller", "x_forwarded", "x-forwarded_client"},
		},
		{
			"many headers", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\n" + lines(95) + "\r\n", 200, "ok",
			[]string{"x-filler"},
			nil,
		},
		{
			"too many headers", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\n" + lines(100) + "\r\n", 431, "431", nil,
			nil,
		},
		{"large headers", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\nx-large: " + strings.Repeat("l",
			59<<10) + "\r\n\r\n", 200, "ok", []string{"x-large"}, nil},
		{"too large headers", "GET /protocols/plain HTTP/1.1\r\nhost: web\r\nx-large: " + strings.Repeat("l",
			61<<10) + "\r\n\r\n", 431, "431", nil, nil},
		{
			"an absolute target", "GET http://web/protocols/plain?q HTTP/1.1\r\nhost: web\r\n\r\n", 200, "ok",
			[]string{"GET /protocols/plain?q HTTP/1.1\r\n"},
			nil,
		},
		{
			"an absolute target that is forbidden", "GET http://web/other HTTP/1.1\r\nhost: web\r\n\r\n", 403,
			"no AuthorizationPolicy", nil, nil,
		},
		{
			"an answer that ends with its connection", "GET /protocols/close HTTP/1.1\r\nhost: web\r\n\r\n", 200,
			"until the end",
			[]string{"GET"},
			nil,
		},
		{
			"trailers",
			"POST /protocols/trailers HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 900150\r\n\r\n", 200, "hello",
			[]string{"transfer-encoding: chunked", "\r\n0\r\nx-sum: 900150\r\n\r\n"},
			nil,
		},
	} {
		r := s.raw("alice", "web", c.raw)
		if r.err != nil || r.status != c.status || !strings.Contains(r.body, c.text) {
			t.Errorf("%s: %s, want %d %s", c.what, r, c.status, c.text)
		}
		saw := server.arrived()
		if n := min(len(c.saw), 1); len(saw) != n {
			t.Errorf("%s: the application got %d requests: %q", c.what, len(saw), saw)
			continue
		}
		for _, part := range c.saw {
			if !strings.Contains(strings.ToLower(saw[0]), strings.ToLower(part)) {
				t.Errorf("%s: the application saw %q without %q", c.what, saw[0], part)
			}
		}
		if len(saw) > 0 {
			if err := holds(saw[0], c.not...); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		}
	}
	t.Run("requests in a row", s.pipelined)
	t.Run("interim answers and trailers", s.interim)
	t.Run("HTTP/2 to a program of HTTP/1.1", s.priorKnowledge)
}

func (s *shop) pipelined(t *testing.T) {
	c, err := s.open("alice", "web")
	need(t, err)
	defer c.Close()
	one := "GET /protocols/plain?%d HTTP/1.1\r\nhost: web\r\n\r\n"
	r := c.send(fmt.Sprintf(one, 1) + fmt.Sprintf(one, 2))
	if second := c.send(""); r.body != "ok" || second.body != "ok" {
		t.Errorf("%s, %s", r, second)
	}
	s.app("web:8080").arrived()
}

// interim: 100 and 103 pass, from the server and not from a proxy before it, and trailers come to the client.
func (s *shop) interim(t *testing.T) {
	address, err := s.to("alice", "web")
	need(t, err)
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn,
		error,
	) {
		return s.dial("alice", address)
	}, ExpectContinueTimeout: 3 * time.Second}
	defer tr.CloseIdleConnections()
	var interim []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got100Continue: func() { interim = append(interim, "100") },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			interim = append(interim, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
	})
	for _, path := range []string{"hints", "plain", "trailers"} {
		req, err := http.NewRequestWithContext(ctx, "POST", "http://web/protocols/"+path,
			io.NopCloser(strings.NewReader("abc")))
		need(t, err)
		req.Trailer = http.Header{"X-Sum": {"42"}}
		if path == "plain" {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := tr.RoundTrip(req)
		need(t, err)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if path == "trailers" && resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("trailers of the answer: %v", resp.Trailer)
		}
	}
	if got := strings.Join(interim, " "); got != "103</style.css> 100" && got != "103</style.css> 100 100" {
		t.Errorf("interim answers: %s", got)
	}
	if got := s.app("web:8080").arrived(); len(got) != 3 ||
		!strings.Contains(strings.ToLower(got[1]), "expect: 100-continue") {
		t.Errorf("the application got %q", got)
	}
}

func (s *shop) priorKnowledge(t *testing.T) {
	address, err := s.to("alice", "web")
	need(t, err)
	tr := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial("alice", address) },
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	client := http.Client{Transport: tr, Timeout: 3 * time.Second}
	resp, err := client.Get("http://web/protocols/plain")
	need(t, err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" || resp.Proto != "HTTP/2.0" {
		t.Errorf("%s %q %v", resp.Proto, body, err)
	}
	if got := s.app("web:8080").arrived(); len(got) != 1 ||
		!strings.HasPrefix(got[0], "GET /protocols/plain HTTP/1.1\r\n") {
		t.Errorf("the application got %q", got)
	}
}
