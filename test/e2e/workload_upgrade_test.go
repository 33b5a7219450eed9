//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// answerSpecially answers what is asked for below /protocols/; false ends the connection.
func answerSpecially(c net.Conn, in *bufio.Reader, req *http.Request) bool {
	switch strings.TrimPrefix(req.URL.Path, "/protocols/") {
	case "stream": // takes any upgrade, and then gives every byte back
		if req.Header.Get("Upgrade") == "" {
			fmt.Fprint(c, "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n")
			return true
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nwelcome\n",
			req.Header.Get("Upgrade"))
		io.Copy(c, in)
		return false
	case "hints":
		fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
	case "trailers":
		fmt.Fprintf(c,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: %s\r\n\r\n", req.Trailer.Get("X-Sum"))
		return true
	case "large":
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", largeAnswer)
		_, err := io.CopyN(c, endless{}, largeAnswer)
		return err == nil
	case "close":
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\nuntil the end")
		return false
	}
	_, err := fmt.Fprint(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
	return err == nil
}

const (
	upgradeTo   = "GET %s HTTP/1.1\r\nhost: web\r\nConnection: %s\r\nUpgrade: %s\r\n%s\r\n"
	onlyStreams = `[{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], ` +
		`to: [{operation: {methods: [GET], paths: [/protocols/stream, /protocols/plain, /again]}}]}]`
)

// upgrades: a WebSocket and its like pass under the policy of the request that opens them; what is merely offered is
// ignored; and no upgrade hides a request from the policies.
func (s *shop) upgrades(t *testing.T) {
	s.apply(t, "web", allow(onlyStreams))
	server := s.app("web:8080")
	within(t, 5*time.Second, "alice may upgrade", func() error {
		_, err := s.upgraded("alice", "/protocols/stream", "websocket")
		return err
	})
	within(t, 10*time.Second, "the server knows of the policy",
		func() error { return s.expect(403, s.get("alice", "web", "/other")) })
	server.arrived()
	for _, protocol := range []string{"websocket", "WebSocket", "SPDY/3.1", "tcp", "isthmus", "foo, bar"} {
		c, err := s.upgraded("alice", "/protocols/stream", protocol)
		if err != nil {
			t.Errorf("%s: %v", protocol, err)
			continue
		}
		if err := s.echo(c); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		c.Close()
		if got := strings.Join(server.arrived(),
			""); !strings.Contains(strings.ToLower(strings.ReplaceAll(got, ", ", ",")),
			"upgrade: "+strings.ToLower(strings.ReplaceAll(protocol, ", ", ","))+"\r\n") ||
			strings.Contains(got, "isthmus-upgrade") {
			t.Errorf("%s: the application saw %q", protocol, got)
		}
	}
	for _, c := range []struct {
		what, from, raw string
		status          int
		text            string // in the answer
	}{
		{
			"another caller", "bob", fmt.Sprintf(upgradeTo, "/protocols/stream", "upgrade", "websocket", ""), 403,
			"may not call",
		},
		{
			"another path", "alice", fmt.Sprintf(upgradeTo, "/other", "upgrade", "websocket", ""), 403,
			"no AuthorizationPolicy there allows",
		},
		{"another method", "alice", strings.Replace(fmt.Sprintf(upgradeTo, "/protocols/stream", "upgrade", "foo", ""),
			"GET", "POST", 1), 403, "no AuthorizationPolicy there allows"},
		{"a body", "alice", fmt.Sprintf(upgradeTo, "/protocols/stream", "upgrade", "foo",
			"content-length: 3\r\n") + "abc", 400, "takes no body with an upgrade"},
		{"CONNECT", "alice", "CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n", 405, "opens no tunnels"},
	} {
		r := s.raw(c.from, "web", c.raw)
		if r.status != c.status || !strings.Contains(r.body, c.text) {
			t.Errorf("%s: %s, want %d %s", c.what, r, c.status, c.text)
		}
		if got := server.arrived(); len(got) > 0 {
			t.Errorf("%s: the application got %q", c.what, got)
		}
	}
	t.Run("offers are ignored", s.offers)
	t.Run("no request behind an upgrade", s.behindUpgrades)
	t.Run("extended CONNECT", s.extendedConnect)
	t.Run("to a program of HTTP/2", s.upgradeToHTTP2)
	t.Run("cut with its caller", s.upgradeCut)
}

// upgraded opens a stream, up to the first words of the server.
func (s *shop) upgraded(from, path, protocol string) (*line, error) {
	c, err := s.open(from, "web")
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(c, upgradeTo, path, "keep-alive, Upgrade", protocol, "")
	resp, err := http.ReadResponse(c.in, nil)
	if err == nil && (resp.StatusCode != 101 || resp.Header.Get("Upgrade") != strings.ReplaceAll(protocol, ", ", ",")) {
		err = fmt.Errorf("%s, upgrade %q", resp.Status, resp.Header.Get("Upgrade"))
	}
	if err == nil {
		var said string
		if said, err = c.in.ReadString('\n'); said != "welcome\n" {
			err = fmt.Errorf("the server said %q, %v", said, err)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// offers of other forms of HTTP, as Java's clients and curl make them, change nothing; the connection goes on.
func (s *shop) offers(t *testing.T) {
	for _, offer := range []string{"TLS/1.2", "tls/1.3", "h2c", "H2C", "HTTP/2.0", "h2c, TLS/1.2", "h2"} {
		c, err := s.open("alice", "web")
		need(t, err)
		r := c.send(fmt.Sprintf(upgradeTo, "/protocols/plain", "Upgrade, HTTP2-Settings", offer,
			"HTTP2-Settings: AAMAAABkAAQAAP__\r\n"))
		if r.status != 200 || r.body != "ok" {
			t.Errorf("%s: %s", offer, r)
		}
		if got := s.app("web:8080").arrived(); len(got) != 1 || holds(got[0], "upgrade:", "http2-settings") != nil {
			t.Errorf("%s: the application got %q", offer, got)
		}
		if r := c.request("GET", "/again"); r.status != 200 {
			t.Errorf("%s: the connection is gone: %s", offer, r)
		}
		s.app("web:8080").arrived()
		c.Close()
	}
	// What remains of a list is offered on.
	if r := s.raw("alice", "web", fmt.Sprintf(upgradeTo, "/protocols/plain", "Upgrade", "foo, h2c, bar",
		"")); r.status != 200 {
		t.Errorf("a list: %s", r)
	}
	if got := s.app("web:8080").arrived(); len(got) != 1 || holds(got[0], "h2c") != nil ||
		!strings.Contains(strings.ToLower(got[0]), "foo") {
		t.Errorf("a list: the application got %q", got)
	}
}

// behindUpgrades: a server that takes no upgrade reads what follows as its next request, which no policy has seen.
func (s *shop) behindUpgrades(t *testing.T) {
	const hidden = "GET /other HTTP/1.1\r\nhost: web\r\n\r\n"
	for _, protocol := range []string{"websocket", "foo"} {
		c, err := s.open("alice", "web")
		need(t, err)
		if r := c.send(fmt.Sprintf(upgradeTo, "/protocols/plain", "Upgrade", protocol, "") + hidden); r.status != 200 {
			t.Errorf("%s: %s", protocol, r)
		}
		io.WriteString(c, hidden)
		hear(c, 200*time.Millisecond)
		c.Close()
		for _, got := range s.app("web:8080").arrived() {
			if strings.Contains(got, "/other") {
				t.Errorf("%s: the application got %q", protocol, got)
			}
		}
	}
}

// extendedConnect: the same in HTTP/2 (RFC 8441); policies see a GET.
func (s *shop) extendedConnect(t *testing.T) {
	h, err := s.openHTTP2("alice", "web")
	need(t, err)
	defer h.Close()
	for _, c := range []struct {
		path, protocol string
		status         int
	}{
		{"/protocols/stream", "websocket", 200},
		{"/protocols/stream", "foo", 200},
		{"/other", "websocket", 403},
		{"/protocols/stream", "h2c", 400},
		{"/protocols/stream", "TLS/1.3", 400},
		{"", "", 405},
	} {
		status, err := h.connect(c.path, c.protocol)
		if err != nil || status != c.status {
			t.Errorf("%s to %q: %d, %v, want %d", c.protocol, c.path, status, err, c.status)
			continue
		}
		if status == 200 {
			if err := h.echo("hello " + s.canary); err != nil {
				t.Errorf("%s: %v", c.protocol, err)
			}
		}
	}
	for _, got := range s.app("web:8080").arrived() {
		if !strings.HasPrefix(got, "GET /protocols/stream HTTP/1.1\r\n") {
			t.Errorf("the application got %q", got)
		}
	}
}

// upgradeToHTTP2: at an http2 port a program gets the extended CONNECT, whichever version its client speaks.
func (s *shop) upgradeToHTTP2(t *testing.T) {
	service := fmt.Sprintf("talk:%d", streamsPort)
	c, err := s.open("alice", service)
	need(t, err)
	defer c.Close()
	if r := c.send(fmt.Sprintf(upgradeTo, "/open", "upgrade", "websocket", "")); r.status != 101 {
		t.Errorf("HTTP/1.1: %s", r)
	} else if err := s.echo(c); err != nil {
		t.Errorf("HTTP/1.1: %v", err)
	}
	h, err := s.openHTTP2("alice", service)
	need(t, err)
	defer h.Close()
	for path, want := range map[string]int{"/open": 200, "/shut": 403} {
		if status, err := h.connect(path, "websocket"); err != nil || status != want {
			t.Errorf("HTTP/2 to %s: %d, %v", path, status, err)
		} else if status == 200 {
			if err := h.echo("hello"); err != nil {
				t.Errorf("HTTP/2: %v", err)
			}
		}
	}
}

// serveStreams agrees to every extended CONNECT, and gives back what comes on its stream.
func serveStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
				return
			}
			giveBack(framer(c, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}))
		}()
	}
}

func giveBack(f *http2.Framer) {
	for {
		frame, err := next(f)
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status := "400"
			if frame.PseudoValue("method") == "CONNECT" && frame.PseudoValue("protocol") == "websocket" {
				status = "200"
			}
			err = writeFields(f, frame.StreamID, []string{":status: " + status}, status != "200")
		case *http2.DataFrame:
			err = f.WriteData(frame.StreamID, frame.StreamEnded(), frame.Data())
		}
		if err != nil {
			return
		}
	}
}

// upgradeCut: a stream ends with the right of its caller to call at all.
func (s *shop) upgradeCut(t *testing.T) {
	s.apply(t, "web", allow(`[{from: [{source: {namespaces: [default]}}]}]`))
	var c *line
	within(t, 5*time.Second, "bob may upgrade", func() (err error) {
		c, err = s.upgraded("bob", "/protocols/stream", "websocket")
		return err
	})
	defer c.Close()
	need(t, s.echo(c))
	s.apply(t, "web", "")
	if err := closed(c.Conn, 5*time.Second); err != nil {
		t.Errorf("after 5 s: %v", err)
	}
}

func (s *shop) openHTTP2(from, service string) (*http2Client, error) {
	c, err := s.open(from, service)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return newHTTP2Client(c)
}

// connect asks for a stream by CONNECT, extended where a protocol is named, and is the status of the answer.
func (h *http2Client) connect(path, protocol string) (int, error) {
	fields := []string{":method: CONNECT", ":authority: web"}
	if protocol != "" {
		fields = append(fields, ":scheme: http", ":path: "+path, ":protocol: "+protocol)
	}
	if err := h.begin(fields, false); err != nil {
		return 0, err
	}
	return h.status()
}
