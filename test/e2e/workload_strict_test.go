//go:build e2e

package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strict: what comes without mutual TLS of this mesh is refused, whatever it says and wherever it comes from.
func (s *shop) strict(t *testing.T) {
	s.apply(t, "web", allow(`[{}]`)) // identity is all that stands between the outsider and the server
	t.Run("plaintext", s.plaintextRefused)
	t.Run("TLS", s.tlsRefused)
}

func (s *shop) plaintextRefused(t *testing.T) {
	request := "GET /p HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
	for _, from := range []string{outsider, "alice", "host"} {
		for _, to := range []string{
			"10.93.0.21:8080", "10.93.0.21:7000", "10.93.0.21:9999", "10.93.0.21:15006",
			"10.93.0.21:15001", "10.93.0.21:15053", "10.93.0.24:8083",
		} {
			dial := s.dial
			if from == "alice" {
				dial = s.bypass
			}
			conns := s.conns()
			c, err := dial(from, to)
			if err != nil {
				// only capture itself may lead there
				if !errors.Is(err, unix.ECONNREFUSED) || !strings.HasSuffix(to, ":15006") {
					t.Errorf("%s to %s: %v", from, to, err)
				}
				continue
			}
			if text, _ := hear(c, 100*time.Millisecond); text != "" {
				t.Errorf("%s to %s: heard %q without a word", from, to, text)
			}
			l := &line{Conn: c, in: bufio.NewReader(c), say: ""}
			if r := l.send(request); r.status != 403 ||
				!strings.Contains(r.body, "accepts only mutual TLS from inside its mesh") {
				t.Errorf("%s to %s: %s", from, to, r)
			}
			c.Close()
			for what, say := range notHTTP(t) {
				if what == "nothing" {
					continue // may be TLS that is slow: see "slow drip"
				}
				c, err := dial(from, to)
				need(t, err)
				io.WriteString(c, say)
				if text, _ := hear(c, 2*time.Second); strings.Contains(text, "HTTP") {
					t.Errorf("%s, %s to %s: heard %q", from, what, to, text)
				}
				c.Close()
			}
			if n := s.conns() - conns; n != 0 {
				t.Errorf("%s to %s: a server was connected to", from, to)
			}
		}
	}
	if got := s.app("web:8080").arrived(); len(got) > 0 {
		t.Errorf("the application got %q", got)
	}
}

// conns counts how often the servers under attack were connected to.
func (s *shop) conns() (n int64) {
	for _, name := range []string{"web:7000", "web:7001", "mixed:8083"} {
		n += s.app(name).conns.Load()
	}
	return n
}

// tlsRefused: every greeting but that of this mesh fails, at HTTP and at raw TCP.
func (s *shop) tlsRefused(t *testing.T) {
	mine := meshTLS(s.svid(t, caller("alice")))
	alice := "spiffe://shop.example/ns/default/sa/alice"
	old := mine.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	stale := *s.svid(t, caller("alice"))
	stale.Certificate = stale.Certificate[:1] // without its intermediate
	for _, address := range []string{"10.93.0.21:8080", "10.93.0.21:7000"} {
		for _, from := range []string{outsider, "bob"} {
			for _, c := range []struct {
				name string
				conf *tls.Config
				want string
			}{
				{"TLS 1.2", old, "protocol version"},
				{"no certificate", meshTLS(nil), "certificate required"},
				{"self-made", meshTLS(forgery(t, alice, true)), ""},
				{"own authority, our names", meshTLS(forgery(t, alice, false)), "unknown certificate authority"},
				{
					"another mesh", meshTLS(forgery(t, "spiffe://bank.example/ns/default/sa/alice", false)),
					"unknown certificate authority",
				},
				{"the leaf alone", meshTLS(&stale), "unknown certificate authority"},
			} {
				conns := s.conns()
				got, err := s.unheard(from, address, c.conf)
				if err != nil {
					t.Errorf("%s from %s to %s: %v", c.name, from, address, err)
				}
				if !strings.Contains(got, c.want) {
					t.Errorf("%s from %s to %s: refused with %q, want %q", c.name, from, address, got, c.want)
				}
				if s.conns() != conns {
					t.Errorf("%s: the server was connected to", c.name)
				}
			}
		}
	}
	t.Run("the true one is accepted", func(t *testing.T) {
		need(t, s.expect(200, s.secretRequest(t, "bob", "10.93.0.21:8080", "web", "GET", "/")))
	})
	t.Run("no session is resumed", s.noResumption)
	t.Run("the server is who it says", s.serverVerified)
	if got := s.app("web:8080").arrived(); len(got) != 1 {
		t.Errorf("the application got %q", got)
	}
}

// noResumption: a client that keeps tickets finds none that works.
func (s *shop) noResumption(t *testing.T) {
	conf := meshTLS(s.svid(t, caller("alice")))
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	conf.ServerName = "web" // the key of the cache
	for range 3 {
		c, err := s.secretly("alice", "10.93.0.21:8080", conf)
		need(t, err)
		l := &line{Conn: c, in: bufio.NewReader(c), host: "web", say: s.canary}
		need(t, s.expect(400, l.request("GET", "/;"))) // having read, the client has any ticket
		if c.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		if cs, ok := conf.ClientSessionCache.Get("web"); ok && cs != nil {
			t.Error("the server gave a ticket")
		}
		c.Close()
	}
}

// serverVerified: a caller's Envoy sends nothing to whoever stands at a server's address with another certificate. Here
// the endpoint of steady is claimed by web: a WorkloadEntry says so.
func (s *shop) serverVerified(t *testing.T) {
	s.write(t, "impostor.yaml", `
apiVersion: v1
kind: Service
metadata: {name: safe, namespace: default}
spec: {selector: {app: safe}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: safe, namespace: default}
spec: {address: 10.93.0.21, serviceAccount: safe, labels: {app: safe}, ports: {http: 8080}}
`+policy("default", "safe", "selector: {matchLabels: {app: safe}}\nrules: [{}]"))
	defer s.write(t, "impostor.yaml", "")
	within(t, 3*time.Second, "the service safe is known", func() error {
		r := s.get("alice", "safe", "/")
		if r.status == 403 && strings.Contains(r.body, "no service that lists this workload") {
			return errors.New(r.String())
		}
		return nil
	})
	for range 3 { // nor does web hear of it: what it got is checked by who calls this
		if r := s.get("alice", "safe", "/secret"); r.status != 503 ||
			!strings.HasPrefix(r.body, "isthmus: safe.default.svc.cluster.local:80: 503") {
			t.Errorf("got %s, want the 503 of alice's own Envoy", r)
		}
	}
}

// modes: PERMISSIVE takes plaintext as well, but for what policies say of identity; DISABLE takes plaintext; one port
// may differ from the rest.
func (s *shop) modes(t *testing.T) {
	const address = "10.93.0.24"
	plain := func(port, path string) reply {
		c, err := s.dial(outsider, address+":"+port)
		if err != nil {
			return reply{err: err}
		}
		defer c.Close()
		l := &line{Conn: c, in: bufio.NewReader(c), host: "mixed"}
		return l.request("GET", path)
	}
	check := func(what string, status int, r reply) {
		t.Helper()
		if err := s.expect(status, r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("PERMISSIVE, mutual TLS, by principal", 200, s.get("alice", "mixed", "/x"))
	check("PERMISSIVE, mutual TLS, open path", 200, s.get("bob", "mixed", "/open"))
	check("PERMISSIVE, mutual TLS, another caller", 403, s.get("bob", "mixed", "/x"))
	check("PERMISSIVE, plaintext, open path", 200, plain("8080", "/open"))
	check("PERMISSIVE, plaintext, by principal", 403, plain("8080", "/x"))
	check("STRICT port, plaintext", 403, plain("8083", "/open"))
	check("STRICT port, mutual TLS", 200, s.get("alice", "mixed:8083", "/x"))
	check("DISABLE port, plaintext", 200, plain("8082", "/x"))
	if got, err := s.unheard(outsider, address+":8083", meshTLS(nil)); err != nil ||
		!strings.Contains(got, "certificate required") {
		t.Errorf("STRICT port, TLS without a certificate: %q, %v", got, err)
	}
	if got, err := s.unheard(outsider, address+":8080",
		meshTLS(forgery(t, "spiffe://shop.example/ns/default/sa/alice", false))); err != nil ||
		!strings.Contains(got, "unknown certificate authority") {
		t.Errorf("PERMISSIVE port, a forged certificate: %q, %v", got, err)
	}
	t.Run("TCP", func(t *testing.T) { s.modesTCP(t, address+":7000") })
	t.Run("DISABLE, TCP", s.disabledTCP)
}

// modesTCP: only alice may call the raw port, so that plaintext, which has no name, may not.
func (s *shop) modesTCP(t *testing.T, address string) {
	server := s.app("mixed:7000")
	c, err := s.open("alice", "mixed:7000")
	need(t, err)
	defer c.Close()
	if text, err := hear(c, 2*time.Second); text != server.banner {
		t.Errorf("alice hears %q, %v", text, err)
	}
	before := server.conns.Load()
	for _, say := range []string{"", "hello\n"} {
		p, err := s.dial(outsider, address)
		need(t, err)
		io.WriteString(p, say)
		if text, _ := hear(p, 500*time.Millisecond); text != "" {
			t.Errorf("plaintext, having said %q, heard %q", say, text)
		}
		p.Close()
	}
	if n := server.conns.Load() - before; n > 0 {
		t.Errorf("the server was connected to %d times", n)
	}
	// Where nothing is said of identity, plaintext is heard, and so is an application's own TLS.
	s.write(t, "open.yaml", policy("default", "mixed-open",
		"selector: {matchLabels: {app: mixed}}\nrules: [{to: [{operation: {ports: [\"7000\"]}}]}]"))
	defer s.write(t, "open.yaml", "")
	within(t, 3*time.Second, "plaintext to an open raw port", func() error {
		p, err := s.dial(outsider, address)
		if err != nil {
			return err
		}
		defer p.Close()
		io.WriteString(p, "hello\n") // on a PERMISSIVE port the client's first byte tells plaintext from TLS
		if text, err := hear(p, 300*time.Millisecond); !strings.Contains(text, "banner") {
			return fmt.Errorf("heard %q, %v", text, err)
		}
		return nil
	})
	server.arrived()
	p, err := s.dial(outsider, address)
	need(t, err)
	defer p.Close()
	p.SetDeadline(time.Now().Add(500 * time.Millisecond))
	// the server echoes, so that this cannot succeed
	_ = tls.Client(p, &tls.Config{InsecureSkipVerify: true}).Handshake()
	got := ""
	within(t, time.Second, "an application's own TLS", func() error {
		// after a late word of before
		if got += strings.Join(server.arrived(), ""); !strings.Contains(got, "\x16\x03\x01") {
			return fmt.Errorf("the server got %q", got)
		}
		return nil
	})
}

// disabledTCP: a port without mutual TLS is heard in plaintext, and its server may speak first.
func (s *shop) disabledTCP(t *testing.T) {
	p, err := s.dial(outsider, "10.93.0.24:7001")
	need(t, err)
	defer p.Close()
	if text, err := hear(p, time.Second); text != s.app("mixed:7001").banner {
		t.Errorf("heard %q, %v", text, err)
	}
}
