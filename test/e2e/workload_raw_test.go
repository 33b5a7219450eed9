//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rawCases are the bad inputs of the corpus, as bytes, beside what policy A (DENY) must answer. Policy B (ALLOW exact)
// must refuse every one of them. 0 is any refusal; 200 is what only policy B refuses.
var rawCases = []struct {
	name string
	path string // of a request that is otherwise plain
	raw  string // the whole request, for what a path cannot say
	a    []int
}{
	{name: "1 double slash", path: "//admin", a: []int{403}},
	{name: "2 dot segment", path: "/./admin", a: []int{403}},
	{name: "3 dot-dot segment", path: "/public/../admin", a: []int{403}},
	{name: "4 escaped letter", path: "/%61dmin", a: []int{403}},
	{name: "5 escaped dots", path: "/public/%2e%2e/admin", a: []int{403}},
	{name: "6 escaped slash", path: "/x%2f..%2fadmin", a: []int{400}},
	{name: "7 backslash", path: `/public\..\admin`, a: []int{403}},
	{name: "8 dot-dot with parameter", path: "/public/..;/admin", a: []int{400, 403}},
	{name: "9 path parameter", path: "/;x/admin"},
	{name: "10 escaped twice", path: "/%2561dmin"},
	{name: "11 upper case", path: "/ADMIN", a: []int{200}},
	{name: "12 overlong", path: "/%c0%afadmin", a: []int{400}},
	{name: "13 fragment", path: "/public#/admin", a: []int{400}},
	{name: "14 host case", raw: "GET /p HTTP/1.1\r\nHost: SECRET.example\r\n\r\n", a: []int{403}},
	{name: "14 host case of a name of ours", raw: "GET /p HTTP/1.1\r\nHost: AlIas.Default\r\n\r\n", a: []int{403}},
	{name: "15 host with dot", raw: "GET /p HTTP/1.1\r\nHost: alias.default.\r\n\r\n", a: []int{403}},
	{name: "15 host with port", raw: "GET /p HTTP/1.1\r\nHost: alias.default:80\r\n\r\n", a: []int{403}},
	{name: "15 host with dot and port", raw: "GET /p HTTP/1.1\r\nHost: alias.default.:80\r\n\r\n", a: []int{403}},
	{name: "16 two hosts", raw: "GET /p HTTP/1.1\r\nHost: web\r\nHost: alias.default\r\n\r\n", a: []int{400}},
	{name: "16 two hosts in one", raw: "GET /p HTTP/1.1\r\nHost: web,alias.default\r\n\r\n", a: []int{400}},
	{name: "16 host with user information", raw: "GET /p HTTP/1.1\r\nHost: web@alias.default\r\n\r\n", a: []int{400}},
	{name: "16 host with a space", raw: "GET /p HTTP/1.1\r\nHost: web alias.default\r\n\r\n", a: []int{400}},
	{name: "16 host with an escape", raw: "GET /p HTTP/1.1\r\nHost: alias%2edefault\r\n\r\n", a: []int{400}},
	{name: "16 host with a path", raw: "GET /p HTTP/1.1\r\nHost: alias.default/x\r\n\r\n", a: []int{400}},
	{name: "16 host with letters as a port", raw: "GET /p HTTP/1.1\r\nHost: alias.default:x\r\n\r\n", a: []int{400}},
	{name: "16 host beyond ASCII", raw: "GET /p HTTP/1.1\r\nHost: \xe2\x84\xaaelvin\r\n\r\n", a: []int{400}},
	{name: "16 no host", raw: "GET /p HTTP/1.1\r\n\r\n", a: []int{400}},
	{name: "16 absolute form", raw: "GET http://alias.default/p HTTP/1.1\r\nHost: web\r\n\r\n", a: []int{403}},
	{name: "17 one line, two values", raw: "GET /p HTTP/1.1\r\nHost: web\r\nx-role: user,admin\r\n\r\n", a: []int{403}},
	{name: "17 spaced", raw: "GET /p HTTP/1.1\r\nHost: web\r\nx-role: user , admin ,\r\n\r\n", a: []int{403}},
	{name: "17 not UTF-8", raw: "GET /p HTTP/1.1\r\nHost: web\r\nx-role: \xff,admin\r\n\r\n", a: []int{400, 403}},
	{name: "17 two lines", raw: "GET /p HTTP/1.1\r\nHost: web\r\nx-role: user\r\nx-role: admin\r\n\r\n", a: []int{403}},
	{name: "18 underscore", raw: "GET /p HTTP/1.1\r\nHost: web\r\nx_role: admin\r\n\r\n", a: []int{400}},
	{
		name: "20 length and chunks",
		raw:  "POST /p HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		a:    []int{400},
	},
	{
		name: "20 two lengths",
		raw:  "POST /p HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345", a: []int{400},
	},
	{
		name: "20 odd encoding", raw: "POST /p HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		a: []int{501},
	},
	{name: "20 NUL", path: "/admin%00", a: []int{400}},
}

// policyA denies three things and allows alice the rest; policyB allows one path.
var policyA = policy("default", "deny", `
selector: {matchLabels: {app: web}}
action: DENY
rules:
- {to: [{operation: {paths: ["/admin*"]}}]}
- {to: [{operation: {hosts: ["secret.example", "alias.default"]}}]}
- {when: [{key: "request.headers[x-role]", values: [admin]}]}`) + policy("default", "allow", `
selector: {matchLabels: {app: web}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}]}]`)

var policyB = policy("default", "allow", `
selector: {matchLabels: {app: web}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], to: [{operation: {paths: [/public], hosts: [web], notMethods: [POST]}}],
  when: [{key: "request.headers[x-role]", notValues: [admin]}]}]`)

// rawRequests sends the corpus as bytes from a caller that may call.
func (s *shop) rawRequests(t *testing.T) {
	t.Run("DENY", func(t *testing.T) {
		s.apply(t, "web", policyA)
		s.corpus(t, func(a []int) []int { return a })
	})
	t.Run("ALLOW exact", func(t *testing.T) {
		s.apply(t, "web", policyB)
		s.corpus(t, func([]int) []int { return []int{400, 403, 404, 501} })
		need(t, s.expect(200, s.get("alice", "web", "/public")))
	})
	t.Run("19 headers of ours", s.forgedHeaders)
}

func (s *shop) corpus(t *testing.T, want func([]int) []int) {
	web := s.app("web:8080")
	web.arrived()
	for _, c := range rawCases {
		raw := c.raw
		if raw == "" {
			raw = "GET " + c.path + " HTTP/1.1\r\nHost: web\r\n\r\n"
		}
		mark := fmt.Sprintf("x-canary: %s\r\n", s.canary)
		r := s.raw("alice", "web", strings.Replace(raw, "\r\n", "\r\n"+mark, 1))
		list := want(c.a)
		if list == nil {
			list = []int{400, 403}
		}
		if r.err != nil || !slices.Contains(list, r.status) {
			t.Errorf("%s: %s, want %v", c.name, r, list)
		}
		if got := web.arrived(); (len(got) > 0) != slices.Equal(list, []int{200}) {
			t.Errorf("%s: the application got %q", c.name, got)
		}
	}
}

// forgedHeaders: what a client says of itself in headers of ours never arrives.
func (s *shop) forgedHeaders(t *testing.T) {
	s.apply(t, "web", policyA)
	web := s.app("web:8080")
	web.arrived()
	forged := []string{
		"x-forwarded-client-cert: By=spiffe://shop.example/ns/default/sa/web;URI=spiffe://shop.example/ns/default/sa/root",
		"isthmus-caller: spiffe://other.example/ns/default/sa/root", "isthmus-peer: other",
		"x-envoy-original-path: /admin", "x-envoy-external-address: 1.2.3.4", "x-envoy-internal: true",
		"x-envoy-expected-rq-timeout-ms: 1",
		"x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 9",
		"x-envoy-decorator-operation: x",
		"x-envoy-peer-metadata: x", "x-envoy-original-dst-host: 10.93.0.1:15012", "x-envoy-attempt-count: 7",
		"x-envoy-hedge-on-per-try-timeout: true",
		"x-envoy-ip-tags: x", "x-envoy-downstream-service-cluster: x", "x-envoy-downstream-service-node: x",
		"x-envoy-force-trace: true",
		"x-envoy-upstream-alt-stat-name: x", "x-envoy-upstream-stream-duration-ms: 1", "x-envoy-is-timeout-retry: true",
		"x-http-method-override: DELETE", "x-original-url: /admin", "x-rewrite-url: /admin",
		"isthmus-cluster: default/alice>any", "isthmus-cluster: agent", "isthmus-grpc-cluster: agent",
	}
	need(t, s.expect(200, s.get("alice", "web", "/p", append(forged, "x-own: kept")...)))
	got := web.arrived()
	if len(got) != 1 {
		t.Fatalf("the application got %q", got)
	}
	for l := range strings.Lines(strings.ToLower(got[0])) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ":")
		if strings.HasPrefix(name, "x-envoy-") || strings.HasPrefix(name, "isthmus-") ||
			slices.ContainsFunc(forged, func(f string) bool { return strings.HasPrefix(f, name+":") && name != "" }) {
			t.Errorf("arrived: %s: %s", name, value)
		}
	}
	if !strings.Contains(got[0], "x-own: kept") {
		t.Errorf("the client's own header did not arrive: %q", got[0])
	}
}

// apply writes the policies of a server and waits until they are in force: they alone allow, and do not deny, a path
// that tells.
func (s *shop) apply(t *testing.T, app, text string) {
	t.Helper()
	s.marker++
	path := fmt.Sprintf("/in-force/%d", s.marker)
	s.write(t, app+".yaml", text+policy("default", app+"-marker", `
selector: {matchLabels: {app: `+app+`}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], to: [{operation: {ports: ["8080"], paths: [`+path+`]}}]}]`)+
		policy("default", app+"-other-markers", `
selector: {matchLabels: {app: `+app+`}}
action: DENY
rules: [{to: [{operation: {ports: ["8080"], paths: ["/in-force/*"], notPaths: [`+path+`]}}]}]`))
	within(t, 5*time.Second, "the policies are in force",
		func() error { return s.expect(200, s.get("alice", app, path)) })
	s.app(app + ":8080").arrived()
}
