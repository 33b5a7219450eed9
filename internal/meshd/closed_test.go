package meshd

import (
	"database/sql"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
)

const denyYAML = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: default}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/admin/*"]}}]}]
`

const routeYAML = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payments, namespace: default}
spec: {hosts: [payments], http: [{route: [{destination: {host: payments}}]}]}
`

// denied are the names of the policies that deny at the workload payments, as they are in force.
func (p *plane) denied() string {
	p.t.Helper()
	p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	var names []string
	eventually(p.t, "the workload is in the mesh", func() bool {
		w := p.d.loop.Published().Mesh.Workloads[model.WorkloadID{Namespace: "default", Name: "payments"}]
		if w == nil || len(w.Inbound) == 0 {
			return false
		}
		names = nil
		for _, d := range w.Inbound[0].Policies.Deny {
			names = append(names, d.Name)
		}
		return true
	})
	return strings.Join(names, ", ")
}

func (p *plane) readyz(query string) string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.cfg.HealthAddress + "/readyz" + query)
	must(p.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(p.t, err)
	return resp.Status + ": " + strings.TrimSpace(string(text))
}

const degraded = "degraded: 1 object of the configuration is not in force, and what it selects is closed: see isthmus status --findings"

// At a cold start an ALLOW never comes into force without the DENY, whatever stands beside that or in it.
func TestColdStartWithoutTheDeny(t *testing.T) {
	t.Parallel()
	typo := strings.Replace(denyYAML, "paths", "path", 1)
	syntax := strings.Replace(denyYAML, "rules: [{", "rules: [{{", 1)
	for name, test := range map[string]struct{ deny, want string }{
		"beside a VirtualService": {denyYAML + routeYAML, "default/no-admin"},
		"beside null":             {"null\n---\n" + denyYAML + "---\n~\n---\n", "default/no-admin"},
		"beside a broken Service": {
			denyYAML + "---\n" + strings.Replace(shopYAML[:strings.Index(shopYAML, "---")], "payments", "UPPER", 1),
			"default/no-admin",
		},
		"misspelt": {typo, "closed-by-AuthorizationPolicy-default/no-admin"},
		"not YAML": {syntax, "closed-by-AuthorizationPolicy-default/no-admin"},
		"not YAML, for the whole mesh": {
			strings.Replace(syntax, "namespace: default", "namespace: isthmus-system", 1),
			"closed-by-AuthorizationPolicy-isthmus-system/no-admin",
		},
		"kind misspelt": {
			strings.Replace(denyYAML, "AuthorizationPolicy", "AuthorisationPolicy", 1),
			"closed-by-AuthorisationPolicy-default/no-admin",
		},
		"a kind that is not carried out": {
			strings.Replace(denyYAML, "AuthorizationPolicy", "RequestAuthentication", 1),
			"closed-by-RequestAuthentication-default/no-admin",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "allow.yaml": shopYAML, "deny.yaml": test.deny})
			if got := p.denied(); got != test.want {
				t.Errorf("denied by %q, want %q\n%v", got, test.want, p.status().Findings)
			}
			want := "200 OK: ok"
			if strings.HasPrefix(test.want, "closed") {
				want = "200 OK: " + degraded
				if got := p.readyz("?strict"); got != "503 Service Unavailable: "+degraded {
					t.Errorf("/readyz?strict: %s", got)
				}
				contains(t, "the finding", p.found("ISM0201"), "is not in force, so nobody may call ", "deny.yaml:")
				contains(t, "the log", p.logs.String(), "ISM0201")
				checks := ask[adminapi.CheckResponse](t, p.local(), "Check", &adminapi.Empty{}).Checks
				if c := checks[1]; c.Name != "policy in force" || c.State != "failed" ||
					!strings.Contains(c.Detail, "ISM0201") {
					t.Errorf("the check says %+v", c)
				}
			}
			if got := p.readyz(""); got != want {
				t.Errorf("/readyz: %s, want %s", got, want)
			}
			p.write("deny.yaml", denyYAML)
			eventually(t, "mended", func() bool { return p.readyz("?strict") == "200 OK: ok" })
		})
	}
}

// A document that says nothing, in any file, is nothing, at every start.
func TestNullDocuments(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{
		"mesh.yaml": meshYAML, "null.yaml": "null\n", "tilde.yaml": "~", "empty.yaml": "", "text.yml": "text\n",
		"list.json": "[]",
	})
	must(t, p.stop())
	p.start()
	p.write("later.yaml", "---\nnull\n---\n~\n")
	p.write("shop.yaml", shopYAML)
	eventually(t, "it goes on", func() bool { return p.status().Objects == 4 })
}

// Who was first stays first: a second Mesh and a second Service in files that sort first, before and after restarts and
// renames.
func TestFirstStaysFirst(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"m.yaml": meshYAML, "shop.yaml": shopYAML})
	first := func(when string) {
		t.Helper()
		eventually(t, when+": both are reported",
			func() bool { return p.found("ISM-SRC04") != "" && p.found("ISM-SRC05") != "" })
		if s := p.status(); s.Mesh != "cards" {
			t.Errorf("%s: the mesh is %s", when, s.Mesh)
		}
		for _, s := range snapshot.Of[*corev1.Service](p.d.store.Snapshot().Config) {
			if s.Spec.Ports[0].Port != 80 {
				t.Errorf("%s: the Service that came second is in force", when)
			}
		}
	}
	p.write("a.yaml",
		strings.Replace(meshYAML[:strings.Index(meshYAML, "---")], "name: cards", "name: thief",
			1)+"---\n"+strings.Replace(shopYAML[:strings.Index(shopYAML, "---")], "port: 80", "port: 81", 1))
	first("written")
	must(t, p.stop())
	p.start()
	first("restarted")
	must(t, os.Rename(p.cfg.ConfigDir+"/m.yaml", p.cfg.ConfigDir+"/z.yaml"))
	must(t, os.Rename(p.cfg.ConfigDir+"/shop.yaml", p.cfg.ConfigDir+"/zz.yaml"))
	eventually(t, "the renames are seen", func() bool { return strings.Contains(p.found("ISM-SRC05"), "/z.yaml") })
	first("renamed")
	must(t, p.stop())
	must(t, os.Rename(p.cfg.ConfigDir+"/z.yaml", p.cfg.ConfigDir+"/y.yaml"))
	p.start()
	first("renamed while it was away")
}

// A fault of ours in the middle of the spine leaves in force what was, is named, and is over with its cause.
func TestFaultWhileCompiling(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	p.plant = func(d *Daemon) {
		d.compile = func(before *compile.Compiled, snap *snapshot.Snapshot) *compile.Compiled {
			for _, s := range snapshot.Of[*corev1.Service](snap.Config) {
				if s.Name == "billing" {
					panic("planted")
				}
			}
			return compile.Next(before, snap)
		}
	}
	p.start()
	p.write("more.yaml", strings.ReplaceAll(shopYAML, "payments", "billing"))
	eventually(t, "it is found", func() bool { return p.found("ISM0205") != "" })
	contains(t, "the finding", p.found("ISM0205"), "planted", "what was in force stays")
	contains(t, "the log", p.logs.String(), "configuration not applied", "closed_test.go")
	p.write("more.yaml", strings.ReplaceAll(shopYAML, "payments", "delivery"))
	eventually(t, "it goes on", func() bool { return p.found("ISM0205") == "" && p.status().Objects == 6 })
}

// A fault of ours at one proxy's configuration is that proxy's alone, is named, and is over with its cause.
func TestFaultAtOneProxy(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	var planted atomic.Bool
	p.plant = func(d *Daemon) {
		build := d.build
		d.build = func(v *view.View, cfg *snapshot.Config) *envoy.Resources {
			if planted.Load() && v.Proxy.Name == "node-a" {
				panic("planted")
			}
			return build(v, cfg)
		}
	}
	p.start()
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	at, bt := ads(t, a.conn, nil), ads(t, b.conn, nil)
	at.until("configured", func() bool { return at.has[envoy.ClusterType][cluster] != "" })
	bt.until("configured", bt.hasListener("inbound/default/payments"))
	planted.Store(true)
	before := bt.has[envoy.ListenerType]["inbound/default/payments"]
	p.write("shop.yaml",
		strings.NewReplacer("sa/shop", "sa/somebody-else", "targetPort: 8080", "targetPort: 9090").Replace(shopYAML))
	bt.until("the other one is told",
		func() bool { return bt.has[envoy.ListenerType]["inbound/default/payments"] != before })
	eventually(t, "it is found", func() bool { return p.found("ISM0206") != "" })
	contains(t, "the finding", p.found("ISM0206"), "proxy node-a", "planted", "keeps what it has")
	if at.rest(); at.has[envoy.ClusterType][cluster] == "" {
		t.Error("the proxy lost what it had")
	}
	generation := p.d.loop.Published().Generation
	away := workload("payments", "payments", "10.0.0.2")
	away.Ready = !away.Ready
	b.report(agentapi.Report{Workloads: []snapshot.Workload{away}})
	eventually(t, "an endpoint changes", func() bool { return p.d.loop.Published().Generation > generation })
	contains(t, "the finding after a change of endpoints alone", p.found("ISM0206"), "proxy node-a")
	planted.Store(false)
	p.write("mesh.yaml", meshYAML+"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n")
	at.until("told at last", func() bool { return at.has[envoy.ClusterType][cluster] == "" })
	eventually(t, "it is over", func() bool { return p.found("ISM0206") == "" })
}

// Of two PeerAuthentications on one workload the older holds, whatever files and objects are called, after a restart
// too.
func TestOlderPeerAuthenticationHolds(t *testing.T) {
	t.Parallel()
	auth := func(name, mode string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: " +
			name + ", namespace: default}\nspec: {selector: {matchLabels: {app: payments}}, mtls: {mode: " + mode +
			"}}\n"
	}
	p := startPlane(t, map[string]string{
		"mesh.yaml": meshYAML, "shop.yaml": shopYAML,
		"z.yaml": auth("z", "PERMISSIVE"),
	})
	a := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	mode := func() string {
		w := p.d.loop.Published().Mesh.Workloads[model.WorkloadID{Namespace: "default", Name: "payments"}]
		if w == nil || len(w.Inbound) == 0 {
			return ""
		}
		return w.Inbound[0].Mode.String()
	}
	eventually(t, "permissive", func() bool { return mode() == "PERMISSIVE" })
	p.write("a.yaml", auth("a", "STRICT"))
	eventually(t, "it is found",
		func() bool { return strings.Contains(p.found("ISM0031"), "PeerAuthentication default/a") })
	if got := mode(); got != "PERMISSIVE" {
		t.Errorf("the younger one took over: %s", got)
	}
	must(t, p.stop())
	p.start()
	p.resume(a.credential)
	eventually(t, "the same after a restart",
		func() bool { return mode() == "PERMISSIVE" && strings.Contains(p.found("ISM0031"), "default/a") })
}

// The check of the state file looks at what is in it.
func TestCheckLooksAtTheState(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	state := func() adminapi.Check {
		for _, c := range ask[adminapi.CheckResponse](t, p.local(), "Check", &adminapi.Empty{}).Checks {
			if c.Name == "state" {
				return c
			}
		}
		t.Fatal("no check of the state file")
		return adminapi.Check{}
	}
	if c := state(); c.State != "ok" {
		t.Fatalf("sound: %+v", c)
	}
	// the control plane writes too
	db, err := sql.Open("sqlite", "file:"+p.cfg.StateFile+"?_pragma=busy_timeout(10000)")
	must(t, err)
	defer db.Close()
	_, err = db.Exec("PRAGMA writable_schema = 1")
	must(t, err)
	_, err = db.Exec("UPDATE sqlite_schema SET sql = replace(sql, 'Domain', 'domain') || ' ' WHERE name = 'blobs'")
	must(t, err)
	if c := state(); c.State != "failed" || !strings.Contains(c.Detail, p.cfg.StateFile) ||
		!strings.Contains(c.Remedy, "backup") {
		t.Errorf("with another schema: %+v", c)
	}
}
