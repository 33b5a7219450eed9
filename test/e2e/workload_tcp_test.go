//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// serverFirst: a server that speaks first says not a byte to whom its policies refuse, and all of it at once to the
// rest.
func (s *shop) serverFirst(t *testing.T) {
	alice, bob := `principals: ["`+id("default", "alice")+`"]`, `principals: ["`+id("default", "bob")+`"]`
	for _, c := range []struct {
		name, policies string
		heard, refused []string
	}{
		{"no policy", "", nil, []string{"alice", "bob", "carol"}},
		{"by principal", allow(`[{from: [{source: {` + alice + `}}]}]`), []string{"alice"}, []string{"bob", "carol"}},
		{
			"by principal and port", allow(`[{from: [{source: {` + alice +
				`}}], to: [{operation: {ports: ["7000"]}}]}]`),
			[]string{"alice"},
			[]string{"bob", "carol"},
		},
		{"by port", allow(`[{to: [{operation: {ports: ["7000"]}}]}]`), []string{"alice", "bob", "carol"}, nil},
		{"by another port", allow(`[{to: [{operation: {ports: ["7001"]}}]}]`), nil, []string{"alice", "carol"}},
		{
			"by namespace", allow(`[{from: [{source: {namespaces: [other]}}]}]`),
			[]string{"carol"},
			[]string{"alice", "bob"},
		},
		{
			"DENY by principal", allow(`[{}]`) +
				deny(`[{from: [{source: {`+bob+`}}], to: [{operation: {ports: ["7000"]}}]}]`),
			[]string{"alice", "carol"},
			[]string{"bob"},
		},
		{"DENY by namespace", allow(`[{from: [{source: {`+alice+`}}, {source: {namespaces: [other]}}]}]`) +
			deny(`[{from: [{source: {namespaces: [other]}}]}]`), []string{"alice"}, []string{"bob", "carol"}},
		{"ALLOW with a method", allow(`[{to: [{operation: {methods: [GET]}}]}]`), nil, []string{"alice"}},
		{
			"ALLOW by suffix", allow(`[{from: [{source: {principals: ["*/` + long + `", "*/sa/carol"]}}]}]`),
			[]string{"carol"},
			[]string{"alice"},
		},
		{
			"DENY by suffix", allow(`[{from: [{source: {`+alice+`}}, {source: {`+bob+`}}]}]`) +
				deny(`[{from: [{source: {principals: ["*/sa/bob"]}}], to: [{operation: {ports: ["7000"]}}]}]`), nil,
			[]string{"bob"},
		},
		{
			"DENY with a method", allow(`[{}]`) + deny(`[{to: [{operation: {methods: [GET], ports: ["7000"]}}]}]`), nil,
			[]string{"alice"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.apply(t, "web", c.policies)
			s.nothingRefused(t)
			for _, who := range c.heard {
				s.hears(t, who)
			}
			for _, who := range c.refused {
				s.hearsNothing(t, who)
			}
		})
	}
	t.Run("addresses are asked for with the first byte", s.firstByte)
	t.Run("a change cuts whom it forbids", s.liveTCP)
}

// firstByte: the handshake does not know addresses, so where rules ask for them the first byte decides. Until then the
// connection stays open, whoever it is of and whether or not a program listens: nothing comes and nothing reaches the
// server. With that byte whom the rules refuse is cut, and the others are served.
func (s *shop) firstByte(t *testing.T) {
	s.apply(t, "web", allow(`[{}]`)+deny(`[{from: [{source: {ipBlocks: [10.93.0.12]}}]}]`)) // bob's
	s.write(t, "absent.yaml", absentService)
	defer s.write(t, "absent.yaml", "")
	within(t, 10*time.Second, "the service without a program has an address", func() error {
		_, err := s.to("bob", "absent:7096")
		return err
	})
	s.nothingRefused(t)
	server := s.app("web:7000")
	before := server.conns.Load()
	lines := map[string]*line{}
	for _, c := range [][2]string{{"alice", "web:7000"}, {"bob", "web:7000"}, {"bob", "absent:7096"}} {
		who := c[0] + " to " + c[1]
		within(t, 10*time.Second, who+", silent, stays connected", func() error {
			l, err := s.open(c[0], c[1])
			need(t, err)
			if text, err := hear(l, time.Second); text != "" || !isTimeout(err) {
				l.Close() // Envoys may have learned of absent a moment after names did
				return fmt.Errorf("it hears %q, %w", text, err)
			}
			lines[who] = l
			return nil
		})
		defer lines[who].Close()
	}
	if n := server.conns.Load() - before; n > 0 {
		t.Errorf("the server was connected to %d times before anybody had said anything", n)
	}
	for who, l := range lines {
		_, err := io.WriteString(l, "x")
		need(t, err)
		switch {
		case who != "alice to web:7000":
			err = closed(l, 2*time.Second)
		default:
			var text string
			if text, err = hear(l, 2*time.Second); !strings.HasPrefix(text, server.banner) {
				t.Errorf("%s hears %q", who, text)
			}
		}
		if err != nil {
			t.Errorf("%s, having spoken: %v", who, err)
		}
	}
	if n := server.conns.Load() - before; n != 1 {
		t.Errorf("the server was connected to %d times, want once, by alice", n)
	}
}

// absentService is of a port of web's at which nobody listens.
const absentService = `
apiVersion: v1
kind: Service
metadata: {name: absent, namespace: default}
spec: {selector: {app: web}, ports: [{name: tcp, port: 7096}]}
`

// itself: a workload that calls its own service passes its own policies, as any other caller does.
func (s *shop) itself(t *testing.T) {
	web := `from: [{source: {principals: ["` + id("default", "web") + `"]}}]`
	s.apply(t, "web", allow(`[{`+web+`, to: [{operation: {paths: [/a]}}]}, {`+web+
		`, to: [{operation: {ports: ["7000"]}}]}]`))
	within(t, 3*time.Second, "web may call itself", func() error { return s.expect(200, s.get("web", "web", "/a")) })
	need(t, s.expect(403, s.get("web", "web", "/b")))
	s.hears(t, "web")
	s.apply(t, "web", allow(`[{from: [{source: {principals: ["`+id("default", "alice")+`"]}}]}]`))
	within(t, 3*time.Second, "web may not call itself",
		func() error { return s.expect(403, s.get("web", "web", "/a")) })
}

// hears: the banner comes at once, and then the echo.
func (s *shop) hears(t *testing.T, who string) {
	t.Helper()
	began := time.Now()
	c, err := s.open(who, "web:7000")
	need(t, err)
	defer c.Close()
	if text, err := hear(c, 2*time.Second); text != s.app("web:7000").banner {
		t.Errorf("%s hears %q, %v", who, text, err)
		return
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("%s heard the banner only after %s", who, took)
	} else {
		t.Logf("%s heard the banner after %s", who, took.Round(100*time.Microsecond))
	}
	need(t, s.echo(c))
}

// hearsNothing: neither through the mesh, where the caller's own node knows of no raw port that it may not call, nor
// with the true certificate past that node, where the server's refuses.
func (s *shop) hearsNothing(t *testing.T, who string) {
	t.Helper()
	server := s.app("web:7000")
	before := server.conns.Load()
	c, err := s.open(who, "web:7000")
	need(t, err)
	defer c.Close()
	if err := closed(c, 2*time.Second); err != nil {
		t.Errorf("%s: %v", who, err)
	}
	for _, sni := range []string{"", callerName(who), callerName("alice"), callerName("carol")} {
		for _, say := range []string{"", "hello\n"} {
			conf := meshTLS(s.svid(t, caller(who)))
			conf.ServerName = sni
			if tc, err := s.secretly(who, "10.93.0.21:7000", conf); err == nil {
				io.WriteString(tc, say)
				if text, _ := hear(tc, 100*time.Millisecond); text != "" {
					t.Errorf("%s, past its own side as %q, having said %q, heard %q", who, sni, say, text)
				}
				tc.Close()
			}
		}
	}
	if n := server.conns.Load() - before; n > 0 {
		t.Errorf("%s: the server was connected to %d times", who, n)
	}
}

// callerName is the name that a caller's Envoy asks a raw TCP server for.
func callerName(who string) string {
	m := caller(who)
	sum := sha256.Sum256([]byte("spiffe://" + id(m.namespace, m.account())))
	return hex.EncodeToString(sum[:16]) + ".caller"
}

func (s *shop) echo(c *line) error {
	said := "echo " + s.canary
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, said); err != nil {
		return err
	}
	if text, err := hear(c, 2*time.Second); text != said {
		return fmt.Errorf("the echo is %q, %v", text, err)
	}
	return nil
}

// liveTCP: two callers are connected; a change that forbids one cuts it within five seconds, the other stays connected.
func (s *shop) liveTCP(t *testing.T) {
	both := `[{from: [{source: {principals: ["` + id("default", "alice") + `", "` + id("default", "bob") + `"]}}]}]`
	s.apply(t, "web", allow(both))
	lines := map[string]*line{}
	for _, who := range []string{"alice", "bob"} {
		c, err := s.open(who, "web:7001")
		need(t, err)
		defer c.Close()
		if text, err := hear(c, 2*time.Second); text == "" {
			t.Fatalf("%s hears nothing: %v", who, err)
		}
		need(t, s.echo(c))
		lines[who] = c
	}
	s.write(t, "web.yaml", allow(`[{from: [{source: {principals: ["`+id("default", "alice")+`"]}}]}]`))
	began := time.Now()
	if err := closed(lines["bob"].Conn, 5*time.Second); err != nil {
		t.Errorf("bob after 5 s: %v", err)
	}
	t.Logf("bob was cut after %s", time.Since(began).Round(time.Millisecond))
	waittest.Quiet(5*time.Second - time.Since(began))
	if err := s.echo(lines["alice"]); err != nil {
		t.Errorf("alice: %v", err)
	}
}
