//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/waittest"
)

// allow, deny: rules of one policy for the server web, in YAML's flow form.
func allow(rules string) string { return onWeb("allow", "ALLOW", rules) }
func deny(rules string) string  { return onWeb("deny", "DENY", rules) }

func onWeb(name, action, rules string) string {
	return policy("default", name, "selector: {matchLabels: {app: web}}\naction: "+action+"\nrules: "+rules)
}

const long = "a-namespace-with-a-name-as-long-as-kubernetes-allows-63-letters" // 63 letters

// policyCases are policies and what they mean: "caller method path status header:value …".
var policyCases = []struct {
	name, policies string
	want           []string
}{
	{"methods", allow(`[{to: [{operation: {methods: [GET, "P*"]}}]}]`), []string{
		"alice GET / 200", "alice POST / 200", "bob PUT / 200", "alice DELETE / 403", "alice TRACE / 403",
		"alice GETS / 400",
	}},
	{"paths", allow(`[{to: [{operation: {paths: [/exact, "/pre*", "*.png"]}}]}]`), []string{
		"alice GET /exact 200", "alice GET /exact?q=/other 200", "alice GET /exact/ 403", "alice GET /EXACT 403",
		"alice GET /pre 200",
		"alice GET /prefix/x 200", "alice GET /x/y.png 200", "alice GET /x.png/y 403", "alice GET /x?y.png 403",
		"alice GET /pr 403",
	}},
	{"path templates", allow(`[{to: [{operation: {paths: ["/a/{*}/c", "/files/{**}", "/v/{*}"]}}]}]`), []string{
		"alice GET /a/b/c 200", "alice GET /a/c 403", "alice GET /a/b/b/c 403", "alice GET /a//c 403",
		"alice GET /files/x/y 200", "alice GET /files 403",
		"alice GET /v/1 200", "alice GET /v/1/2 403", "alice GET /v/1?q=/2 200", "alice GET /a/b/c/ 403",
	}},
	{"any path", allow(`[{to: [{operation: {paths: ["*"]}}]}]`), []string{"alice GET /x 200", "bob GET / 200"}},
	{"hosts", allow(`[{to: [{operation: {hosts: [alias.default, "web.*"]}}]}]`), []string{
		"alice GET / 403", "alice GET / 200 host:alias.default", "alice GET / 200 host:ALIAS.Default",
		"alice GET / 200 host:alias.default:80",
		"alice GET / 200 host:web.default", "alice GET / 403 host:alias", "alice GET / 403 host:nowhere",
	}},
	{"hosts with a port", allow(`[{to: [{operation: {hosts: ["alias.default:80", "web.default:*"]}}]}]`), []string{
		"alice GET / 403", "alice GET / 200 host:alias.default", "alice GET / 200 host:alias.default:80",
		"alice GET / 200 host:web.default",
	}},
	{"DENY hosts with a port", allow(`[{}]`) +
		deny(`[{to: [{operation: {hosts: ["alias.default:80", "web.default:*"]}}]}]`), []string{
		"alice GET / 200", "alice GET / 403 host:alias.default", "alice GET / 403 host:alias.default:80",
		"alice GET / 403 host:web.default",
	}},
	{"headers", allow(`[{when: [{key: "request.headers[X-A]", values: [v1, "p*", "*s"]}]}]`), []string{
		"alice GET / 403", "alice GET / 200 x-a:v1", "alice GET / 200 x-a:pq", "alice GET / 200 x-a:qs",
		"alice GET / 403 x-a:V1", "alice GET / 403 x-a:v1,v2",
		"alice GET / 403 x-a:v1 x-a:v2", "alice GET / 403 x-a:v2 x-a:v1",
	}},
	{
		"header present", allow(`[{when: [{key: "request.headers[x-a]", values: ["*"]}]}]`),
		[]string{"alice GET / 403", "alice GET / 200 x-a:1"},
	},
	{"not header", allow(`[{when: [{key: "request.headers[x-a]", notValues: [v1, "p*"]}]}]`), []string{
		"alice GET / 200", "alice GET / 200 x-a:v2", "alice GET / 403 x-a:v1", "alice GET / 403 x-a:v2,v1",
		"alice GET / 403 x-a:v2,pq",
		"alice GET / 403 x-a:v2 x-a:v1", "alice GET / 200 x-a:v2 x-a:v3",
	}},
	{"DENY by header", allow(`[{}]`) + deny(`[{when: [{key: "request.headers[x-a]", values: [v1, "*s"]}]}]`), []string{
		"alice GET / 200", "alice GET / 403 x-a:v1", "alice GET / 403 x-a:v2,v1", "alice GET / 403 x-a:qs,v2",
		"alice GET / 200 x-a:v11", "alice GET / 200 x-a:sq",
	}},
	{"long patterns", allow(`[{from: [{source: {namespaces: ["*`+long+`*", "d*"]}}]}]`) +
		deny(`[{when: [{key: "request.headers[x-a]", values: [`+long+long+`]}]}]`), []string{
		"alice GET / 200", "alice GET / 403 x-a:" + long + long, "alice GET / 403 x-a:y," + long + long,
		"carol GET / 403",
	}},
	{"DENY unless header", allow(`[{}]`) +
		deny(`[{to: [{operation: {notPaths: ["/in-force/*"]}}], when: [{key: "request.headers[x-a]", notValues: [v1]}]}]`), []string{
		"alice GET / 403", "alice GET / 200 x-a:v1", "alice GET / 403 x-a:v1,v2",
	}},
	{
		"not method, path, host",
		allow(`[{to: [{operation: {notMethods: [POST], notPaths: ["/secret*"], notHosts: ["alias*"]}}]}]`),
		[]string{
			"alice GET / 200", "alice POST / 403", "alice GET /secret/x 403", "alice GET /x/../secret 403",
			"alice GET / 403 host:alias",
		},
	},
	{"and, or", allow(`[{from: [{source: {principals: ["` + id("default",
		"alice") +
		`"]}}, {source: {namespaces: [other]}}], to: [{operation: {methods: [GET], paths: [/a]}}, {operation: {paths: [/b]}}], when: [{key: "request.headers[x-a]", values: ["*"]}]}]`), []string{
		"alice GET /a 200 x-a:1", "carol GET /a 200 x-a:1", "bob GET /a 403 x-a:1", "alice GET /a 403",
		"alice POST /a 403 x-a:1", "alice POST /b 200 x-a:1",
	}},
	{
		"principals", allow(`[{from: [{source: {principals: ["` + id("default", "alice") + `"]}}]}]`),
		[]string{"alice GET / 200", "bob GET / 403", "carol GET / 403"},
	},
	{
		"principals by prefix", allow(`[{from: [{source: {principals: ["shop.example/ns/default/*"]}}]}]`),
		[]string{"alice GET / 200", "bob GET / 200", "carol GET / 403"},
	},
	{
		"principals by suffix", allow(`[{from: [{source: {principals: ["*/sa/carol"]}}]}]`),
		[]string{"alice GET / 403", "carol GET / 200"},
	},
	{
		"any principal", allow(`[{from: [{source: {principals: ["*"]}}]}]`),
		[]string{"alice GET / 200", "carol GET / 200"},
	},
	{
		"cluster.local", allow(`[{from: [{source: {principals: ["cluster.local/ns/other/sa/carol"]}}]}]`),
		[]string{"bob GET / 403", "carol GET / 200"},
	},
	{
		"another domain", allow(`[{from: [{source: {principals: ["bank.example/ns/default/sa/alice"]}}]}]`),
		[]string{"alice GET / 403", "bob GET / 403"},
	},
	{
		"not principals", allow(`[{from: [{source: {notPrincipals: ["` + id("default", "bob") + `"]}}]}]`),
		[]string{"alice GET / 200", "bob GET / 403", "carol GET / 200"},
	},
	{
		"namespaces", allow(`[{from: [{source: {namespaces: [other]}}]}]`),
		[]string{"alice GET / 403", "carol GET / 200"},
	},
	{
		"namespaces by pattern", allow(`[{from: [{source: {namespaces: ["o*r", "` + long + `*"]}}]}]`),
		[]string{"alice GET / 403", "carol GET / 200"},
	},
	{
		"not namespaces", allow(`[{from: [{source: {notNamespaces: [other]}}]}]`),
		[]string{"alice GET / 200", "carol GET / 403"},
	},
	{
		"service accounts", allow(`[{from: [{source: {serviceAccounts: [bob, other/carol]}}]}]`),
		[]string{"alice GET / 403", "bob GET / 200", "carol GET / 200"},
	},
	{
		"not service accounts", allow(`[{from: [{source: {notServiceAccounts: [bob]}}]}]`),
		[]string{"alice GET / 200", "bob GET / 403"},
	},
	{
		"addresses", allow(`[{from: [{source: {ipBlocks: [10.93.0.12/31]}}]}]`),
		[]string{"alice GET / 403", "bob GET / 200", "carol GET / 200", "alice GET / 403 x-forwarded-for:10.93.0.12"},
	},
	{
		"not addresses", allow(`[{from: [{source: {notIpBlocks: [10.93.0.12]}}]}]`),
		[]string{"alice GET / 200", "bob GET / 403", "bob GET / 403 x-forwarded-for:10.93.0.11"},
	},
	{
		"remote addresses", allow(`[{from: [{source: {remoteIpBlocks: [10.93.0.12]}}]}]`),
		[]string{"alice GET / 403 x-forwarded-for:10.93.0.12", "bob GET / 200"},
	},
	{
		"ports",
		allow(`[{to: [{operation: {ports: ["8080"], methods: [GET]}}, {operation: {ports: ["7000"], methods: [PUT]}}]}]`),
		[]string{"alice GET / 200", "alice PUT / 403", "alice POST / 403"},
	},
	{"not ports", allow(`[{to: [{operation: {notPorts: ["8080"]}}]}]`), []string{"alice GET / 403"}},
	{
		"conditions",
		allow(`[{when: [{key: source.namespace, values: [other]}]}, {when: [{key: source.principal, values: ["*/sa/bob"]}, {key: destination.port, values: ["8080"]}, {key: source.ip, notValues: [10.93.0.11]}]}]`),
		[]string{
			"alice GET / 403", "bob GET / 200", "carol GET / 200",
		},
	},
	{
		"DENY over ALLOW",
		allow(`[{}]`) + deny(`[{from: [{source: {namespaces: [other]}}]}, {to: [{operation: {paths: ["/admin*"]}}]}]`),
		[]string{
			"alice GET / 200", "carol GET / 403", "alice GET /admin 403", "bob GET /admin/x 403",
		},
	},
	{"DENY not principals", allow(`[{}]`) + deny(`[{from: [{source: {notPrincipals: ["`+id("default",
		"alice")+`"]}}]}]`), []string{"alice GET / 200", "bob GET / 403", "carol GET / 403"}},
	{"root namespace", policy("isthmus-system", "mesh-wide",
		`{action: DENY, rules: [{to: [{operation: {paths: [/forbidden]}}]}]}`) +
		policy("isthmus-system", "web",
			`{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {namespaces: [other]}}]}]}`), []string{
		"carol GET / 200", "carol GET /forbidden 403", "alice GET / 403", "bob GET / 403",
	}},
	{
		"another namespace's policy", policy("other", "elsewhere", `{rules: [{}]}`),
		[]string{"alice GET / 403", "bob GET / 403"},
	},
	{"empty spec", policy("default", "nothing", `{}`), []string{"alice GET / 403", "bob GET / 403"}},
	{
		"no rules", policy("default", "nothing", `{selector: {matchLabels: {app: web}}, action: ALLOW}`),
		[]string{"alice GET / 403"},
	},
	{"all", allow(`[{}]`), []string{"alice GET / 200", "carol DELETE /x 200", "bob POST /y 200"}},
	{"no policy", "", []string{"alice GET / 403", "bob GET / 403"}},
}

// policies asks each question twice: as a program in the mesh does, and with the caller's true certificate past its own
// Envoy.
func (s *shop) policies(t *testing.T) {
	for _, c := range policyCases {
		s.apply(t, "web", c.policies)
		s.nothingRefused(t)
		for _, q := range c.want {
			f := strings.Fields(q)
			status, err := strconv.Atoi(f[3])
			need(t, err)
			var headers []string
			for _, h := range f[4:] {
				headers = append(headers, strings.Replace(h, ":", ": ", 1))
			}
			for way, r0 := range map[string]func() reply{
				"through the mesh": func() reply { return s.request(f[0], "web", f[1], f[2], headers...) },
				"past its own side": func() reply {
					return s.secretRequest(t, f[0], "10.93.0.21:8080", "web", f[1], f[2], headers...)
				},
			} {
				r := r0()
				for n := 0; n < 50 && status == 200 && strings.Contains(r.body, "may not call"); n++ {
					// the caller's node hears of it a moment later than the server's
					waittest.Pace(10 * time.Millisecond)
					r = r0()
				}
				if r.err != nil || r.status != status {
					t.Errorf("%s: %s, %s: %s", c.name, q, way, r)
				}
				if got := s.app("web:8080").arrived(); (len(got) == 1) != (status == 200) {
					t.Errorf("%s: %s, %s: the application got %q", c.name, q, way, got)
				}
			}
		}
	}
	t.Run("nothing allowed past a DENY of all", s.denyAll)
	t.Run("a file with a mistake", s.mistake)
	t.Run("a change reaches open HTTP connections", s.liveHTTP)
}

// nothingRefused: no Envoy refused any configuration.
func (s *shop) nothingRefused(t *testing.T) {
	t.Helper()
	within(t, 3*time.Second, "every Envoy is in step", func() error { return s.ready(t.Context()) })
}

// denyAll: policies that leave nothing open, not even to the marker of the other tests.
func (s *shop) denyAll(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"all", deny(`[{}]`)},
		{"in the root namespace", policy("isthmus-system", "all",
			`{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}`)},
	} {
		s.apply(t, "web", allow(`[{}]`))
		s.write(t, "web.yaml", allow(`[{}]`)+c.text)
		within(t, 3*time.Second, c.name, func() error { return s.expect(403, s.get("alice", "web", "/")) })
		within(t, 3*time.Second, c.name+", past its own side", func() error {
			return s.expect(403, s.secretRequest(t, "alice", "10.93.0.21:8080", "web", "GET", "/"))
		})
	}
}

// mistake: a file that cannot be enforced as written changes nothing, and is told of.
func (s *shop) mistake(t *testing.T) {
	s.apply(t, "web", allow(`[{to: [{operation: {paths: [/mine]}}]}]`))
	// The caller's node hears of it a moment later than the server's.
	within(t, 10*time.Second, "bob may", func() error { return s.expect(200, s.get("bob", "web", "/mine")) })
	for _, text := range []string{
		allow(`[{}, {when: [{key: "request.auth.claims[x]", values: [y]}]}]`),
		allow(`[{}`),
		allow(`[{from: [{source: {}}]}]`),
		policy("default", "allow", `{selector: {matchLabels: {app: web}}, actoin: DENY, rules: [{}]}`),
	} {
		s.write(t, "web.yaml", text)
		within(t, 3*time.Second, "a finding", func() error {
			st, err := s.status(t.Context())
			if err == nil && !slices.ContainsFunc(st.Findings, mistake) {
				err = fmt.Errorf("none about %s", text)
			}
			return err
		})
		need(t, s.expect(200, s.get("bob", "web", "/mine")))
		need(t, s.expect(403, s.get("bob", "web", "/other")))
		s.write(t, "web.yaml", allow(`[{to: [{operation: {paths: [/mine]}}]}]`))
		within(t, 3*time.Second, "no finding", func() error {
			st, err := s.status(t.Context())
			if err == nil && slices.ContainsFunc(st.Findings, mistake) {
				err = fmt.Errorf("still %v", st.Findings)
			}
			return err
		})
	}
}

// mistake leaves out what is merely worth knowing.
func mistake(f finding.Finding) bool { return f.Severity != finding.Info }

// liveHTTP: one connection lives through changes of policy, and each holds from then on.
func (s *shop) liveHTTP(t *testing.T) {
	only := func(path string) string { return allow(`[{to: [{operation: {paths: [` + path + `]}}]}]`) }
	s.apply(t, "web", only("/one"))
	c, err := s.open("bob", "web")
	need(t, err)
	defer c.Close()
	need(t, s.expect(200, c.request("GET", "/one")))
	need(t, s.expect(403, c.request("GET", "/two")))
	s.apply(t, "web", only("/two"))
	need(t, s.expect(403, c.request("GET", "/one")))
	need(t, s.expect(200, c.request("GET", "/two")))
	s.apply(t, "web", only("/three"))
	// More than the drain of a changed listener lasts.
	waittest.Quiet(3 * time.Second)
	if r := c.request("GET", "/three"); r.status != 200 {
		t.Errorf("the connection did not live on: %s", r)
	}
	// Who may call nothing any more is refused at once and cut soon.
	s.apply(t, "web", "")
	s.app("web:8080").arrived()
	need(t, s.expect(403, c.request("GET", "/three")))
	if err := closed(c, 5*time.Second); err != nil {
		t.Errorf("who may call nothing: %v", err)
	}
	if got := s.app("web:8080").arrived(); len(got) > 0 {
		t.Errorf("the application got %q", got)
	}
}
