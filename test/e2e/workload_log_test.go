//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// refusals: whatever an Envoy answers or ends itself has a status and words that are true of it, and is in the log of
// the node that did so, with its class. What an application answers is not, whatever that is, nor plaintext where it
// may be spoken.
func (s *shop) refusals(t *testing.T) {
	s.apply(t, "web", policy("default", "deny", `
selector: {matchLabels: {app: web}}
action: DENY
rules: [{to: [{operation: {paths: [/log/denied], ports: ["8080"]}}, {operation: {paths: [/x], ports: ["7098"]}}]}]`)+policy("default", "allow", `
selector: {matchLabels: {app: web}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], to: [{operation: {methods: [GET]}}]}]`))
	s.write(t, "dead.yaml", deadServices)
	within(t, 10*time.Second, "both nodes know of dead", func() error {
		r := s.get("alice", "dead", "/")
		// from the caller's own proxy it says something else
		if !strings.HasPrefix(r.body, "isthmus: default/web: 503 ") {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	began := time.Now()
	s.app("web:8080").arrived()
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: web\r\n" }
	for _, c := range []struct {
		from, to, request string
		status            int
		says              string
	}{
		{
			"alice", "web", get("/log/denied"), 403,
			"default/web refuses this request: an AuthorizationPolicy there denies it\n",
		},
		{
			"alice", "web", strings.Replace(get("/log/none"), "GET", "DELETE", 1), 403,
			"default/web refuses this request: no AuthorizationPolicy there allows this caller, method and path\n",
		},
		{
			"bob", "web", get("/log/unlisted"), 403,
			"default/bob (spiffe://shop.example/ns/default/sa/bob) may not call web at ",
		},
		{"alice", "web", get("/log/;x"), 400, "default/web refuses this path: "},
		{"alice", "web", get("/log/host") + "Host: steady\r\n", 400, "default/web refuses this Host: "},
		{
			"alice", "web", get("/log/large") + "x-large: " + strings.Repeat("x", 200<<10) + "\r\n", 431,
			"web.default.svc.cluster.local:80: 431 ",
		},
		{"alice", "web", "GET /log/broken HTTP/1.1\r\nHost web\r\n", 400, "web.default.svc.cluster.local:80: 400 "},
		{
			"alice", "web", get("/log/hang-up"), 503,
			"default/web: 503 what is behind it may have begun this request, as others before it, and did not answer: UpstreamConnectionTermination\n",
		},
		{"alice", "dead", get("/log/dead"), 503, "default/web: 503 what is behind it could not be reached: "},
		{"alice", "web", get("/log/status/403"), 403, ""},
		{"alice", "web", get("/log/status/503"), 503, ""},
		{
			outsider, "10.93.0.21:8080", get("/log/plaintext"), 403,
			"default/web accepts only mutual TLS from inside its mesh",
		},
	} {
		r := s.raw(c.from, c.to, c.request+"\r\n")
		if r.status != c.status || (c.says == "") != (r.body == "") ||
			!strings.HasPrefix(strings.TrimPrefix(r.body, "isthmus: "), c.says) {
			t.Errorf("%.40q: %s, want %d %q", c.request, r, c.status, c.says)
		}
	}
	// it may be what ends its servers
	if n := strings.Count(strings.Join(s.app("web:8080").arrived(), ""), "GET /log/hang-up "); n != 3 {
		t.Errorf("a GET that no server answers was begun %d times, want 3", n)
	}
	if _, err := s.askGRPC(t, "alice", grpcPort); err != nil { // List is refused
		t.Error(err)
	}
	s.unknownService(t)
	if r := s.raw(outsider, "10.93.0.24:8080", "GET /open HTTP/1.1\r\nHost: mixed\r\n\r\n"); r.status != 200 {
		t.Errorf("plaintext where it may be spoken: %s", r)
	}
	for _, to := range []string{"dead:7099", "dead:7098"} { // nobody listens; nobody may call
		c, err := s.open("alice", to)
		need(t, err)
		if err := closed(c, 5*time.Second); err != nil {
			t.Errorf("raw, to %s: %v", to, err)
		}
		c.Close()
	}
	s.notAdmitted(t)
	s.halfClosed(t, "alice", "web", "/log/half-closed", "web:8080")
	s.halfClosed(t, outsider, "10.93.0.24:8080", "/open", "mixed:8080")
	s.nobodyReady(t)
	want := []string{
		"inbound denied plaintext /log/plaintext",
		"inbound denied policy-deny /log/denied",
		"inbound denied policy-none /grpc.health.v1.Health/List",
		"inbound denied policy-none /log/none",
		"inbound denied policy-raw ", // of who calls past its own node: no other learns of such a port
		"inbound failed client-left /open",
		"inbound failed reset /log/hang-up",
		"inbound failed unreachable ",
		"inbound failed unreachable /log/dead",
		"inbound malformed host /log/host",
		"inbound malformed path /log/;x",
		"outbound denied unlisted ", // a raw port that a DENY closes is told to nobody
		"outbound denied unlisted /log/unlisted",
		"outbound failed client-left /log/half-closed",
		"outbound failed no-endpoint /log/nobody",
		"outbound malformed protocol ",
		"outbound malformed too-large ",
	}
	within(t, 30*time.Second, "each refusal is on record, and nothing else", func() error {
		found, err := s.refused(began, "front", "back")
		if err != nil {
			return err
		}
		for _, w := range want {
			if found[w] == "" {
				return fmt.Errorf("%q is missing", w)
			}
			delete(found, w)
		}
		if len(found) > 0 {
			return fmt.Errorf("nobody expects %v", found)
		}
		return nil
	})
}

// notAdmitted calls a raw port that policies close to the caller. Only a caller past its own node can: the node has no
// way to such a port, since what closes it here closes it there.
func (s *shop) notAdmitted(t *testing.T) {
	conf := meshTLS(s.svid(t, caller("alice")))
	conf.ServerName = callerName("alice")
	if c, err := s.secretly("alice", "10.93.0.21:7098", conf); err == nil {
		c.Close()
		t.Error("alice is let in past her own node where policies refuse her")
	}
}

// unknownService has an application answer with a gRPC error of its own.
func (s *shop) unknownService(t *testing.T) {
	address, err := s.to("alice", fmt.Sprintf("talk:%d", grpcPort))
	need(t, err)
	conn, err := grpc.NewClient("passthrough:///talk.default", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return s.dial("alice", address) }))
	need(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"})
	if err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("an unknown service is %v", err)
	}
}

// halfClosed sends a whole request, and closes the sending half before its server answers: the connection ends without
// a word.
func (s *shop) halfClosed(t *testing.T, from, to, path, server string) {
	c, err := s.open(from, to)
	need(t, err)
	defer c.Close()
	_, err = fmt.Fprintf(c, "GET %s?silent HTTP/1.1\r\nHost: %s\r\n\r\n", path, to)
	need(t, err)
	within(t, 10*time.Second, "the server has the request", func() error {
		if got := strings.Join(s.app(server).arrived(), ""); !strings.Contains(got, path+"?silent") {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
	need(t, c.Conn.(*net.TCPConn).CloseWrite())
	if err := closed(c, 10*time.Second); err != nil {
		t.Errorf("%s, half-closed: %v", path, err)
	}
}

// nobodyReady asks for a service of which no endpoint is ready.
func (s *shop) nobodyReady(t *testing.T) {
	for _, sick := range []bool{true, false} {
		s.app("pool-1:8080").sick.Store(sick)
		s.app("pool-2:8080").sick.Store(sick)
		want := map[bool]int{true: 503, false: 200}[sick]
		within(t, 10*time.Second, fmt.Sprintf("pool answers %d", want), func() error {
			r := s.get("alice", "pool", "/log/nobody")
			if sick && r.body != "isthmus: pool.default.svc.cluster.local:80: 503 no endpoint behind it is ready\n" {
				return fmt.Errorf("%s", r)
			}
			return s.expect(want, r)
		})
	}
}

// refused is what the logs of nodes say was refused or failed since a moment: a line of each kind.
func (s *shop) refused(since time.Time, nodes ...string) (map[string]string, error) {
	found := map[string]string{}
	for _, node := range nodes {
		text, err := s.accessLogs(node)
		if err != nil {
			return nil, err
		}
		for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
			var e struct {
				Time                                   time.Time
				Log, Verdict, Class, Path, Destination string
			}
			if err := json.Unmarshal([]byte(l), &e); err != nil {
				return nil, fmt.Errorf("%w: %s", err, l)
			}
			if !e.Time.Before(since) && e.Destination != "default/steady" { // with which other tests are busy meanwhile
				found[strings.Join([]string{e.Log, e.Verdict, e.Class, e.Path}, " ")] = l
			}
		}
	}
	return found, nil
}

// deadServices lead to ports at which nobody listens.
const deadServices = `
apiVersion: v1
kind: Service
metadata: {name: dead, namespace: default}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8099}, {name: tcp, port: 7099}, {name: tcp-denied, port: 7098}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: dead, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], to: [{operation: {ports: ["8099", "7099", "7098"]}}]}]
`
