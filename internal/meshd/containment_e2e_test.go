//go:build e2e

package meshd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	nodeagent "isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/waittest"
)

const (
	wardPrefix = "isthmus-t-ct"
	poisonNote = "test.example/poison"
	livedSoon  = 500 * time.Millisecond
)

// TestContainment lets three Envoys, each with a server of its own, meet policies that they cannot run with: one at
// one server, and then at all of them. What such a policy selects is closed; the rest, and policies that come later,
// goes on.
func TestContainment(t *testing.T) {
	w := openWards(t)
	w.all("at first", 200, 200, 200)

	t.Run("one node aborts", func(t *testing.T) {
		w := w.in(t)
		w.lived()
		w.write("poison.yaml", poison("abort", "selector: {matchLabels: {app: pay1}}")+deny("beside", "pay1",
			"/beside"))
		w.quarantined("node-1", "AuthorizationPolicy default/poison")
		w.all("the policy's server is closed, and nothing else", 200, 403, 200)
		w.write("later.yaml", deny("later", "pay2", "/"))
		w.all("a later policy is in force", 200, 403, 403)
		w.write("later.yaml", "")
		w.write("poison.yaml",
			"# moved\n\n\n"+poison("abort", "selector: {matchLabels: {app: pay1}}")+deny("beside", "pay1", "/beside"))
		w.all("the policy only moved", 200, 403, 200)
		if n := w.restarts("node-1"); n > 2 {
			t.Errorf("Envoy was started %d times again", n)
		}
		w.write("poison.yaml", poison("", "selector: {matchLabels: {app: pay1}}")+deny("beside", "pay1", "/beside"))
		w.well()
		w.all("the policy is harmless now", 200, 200, 200)
		if got := w.get("pay1", "/beside"); got != 403 {
			t.Errorf("the policy beside it: %d", got)
		}
	})
	for _, kind := range []string{"lds", "rds", "cds", "abort"} {
		t.Run("every node: "+kind, func(t *testing.T) {
			w := w.in(t)
			w.lived()
			w.write("poison.yaml", poison(kind, ""))
			w.write("later.yaml", deny("later", "pay2", "/later"))
			for _, n := range []string{"node-0", "node-1", "node-2"} {
				w.quarantined(n, "AuthorizationPolicy default/poison")
			}
			w.all("all that it selects is closed", 403, 403, 403)
			w.write("poison.yaml", "")
			w.well()
			w.all("it is gone", 200, 200, 200)
			if got := w.get("pay2", "/later"); got != 403 {
				t.Errorf("a policy that came later: %d", got)
			}
			w.write("later.yaml", "")
		})
	}
	t.Run("known after a restart", func(t *testing.T) {
		w := w.in(t)
		w.lived()
		w.write("poison.yaml", poison("abort", ""))
		for _, n := range []string{"node-0", "node-1", "node-2"} {
			w.quarantined(n, "AuthorizationPolicy default/poison")
		}
		before := w.running()
		must(t, w.stop())
		w.start()
		waittest.Quiet(2 * time.Second)
		if after := w.running(); after != before {
			t.Errorf("the loop began anew: Envoys were started again %v times before, %v after", before, after)
		}
		w.all("still closed", 403, 403, 403)
	})
	t.Run("a control plane that knows of nothing better", func(t *testing.T) {
		w := w.in(t)
		must(t, w.stop())
		w.write("poison.yaml", poison("abort", "selector: {matchLabels: {app: pay1}}"))
		w.start()
		w.quarantined("node-1", "AuthorizationPolicy default/poison")
		w.all("its server is closed, and nothing else", 200, 403, 200)
	})
}

// poison is a policy that lets everybody call, and that some Envoy resource of a kind is spoiled by.
func poison(kind, selector string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: poison, namespace: default, annotations: {%s: %q}}
spec: {%s}
`, poisonNote, kind, strings.Join(append([]string{"rules: [{}]"}, notEmpty(selector)...), ", "))
}

func notEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func deny(name, app, path string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: default}
spec: {action: DENY, selector: {matchLabels: {app: %s}}, rules: [{to: [{operation: {paths: [%q]}}]}]}
`, name, app, path)
}

// poisoned builds what a proxy is told, and spoils it where a poison is in force.
func poisoned(t *testing.T) func(v *view.View, cfg *snapshot.Config) *envoy.Resources {
	return func(v *view.View, cfg *snapshot.Config) *envoy.Resources {
		res := envoy.Build(v)
		for _, p := range snapshot.Of[*security.AuthorizationPolicy](cfg) {
			if kind := p.Annotations[poisonNote]; kind != "" && inForce(res, p.Name) {
				spoil(t, res, kind)
			}
		}
		return res
	}
}

// inForce says whether a policy stands at a server of the proxy.
func inForce(res *envoy.Resources, policy string) bool {
	return slices.ContainsFunc(slices.Concat(res.ByType[envoy.ListenerType],
		res.ByType[envoy.RouteType]), func(r *envoy.Resource) bool {
		return ofServer(r) && slices.ContainsFunc(r.Refs, func(ref model.Ref) bool {
			return strings.HasPrefix(string(ref), "AuthorizationPolicy default/"+policy)
		})
	})
}

func ofServer(r *envoy.Resource) bool {
	return !strings.HasPrefix(r.Name, "outbound/") && !strings.Contains(r.Name, ">")
}

func spoil(t *testing.T, res *envoy.Resources, kind string) {
	change := func(typ string, m proto.Message, fn func()) {
		for i, r := range res.ByType[typ] {
			if !ofServer(r) {
				continue
			}
			must(t, proto.Unmarshal(r.Body, m))
			fn()
			bad := *r
			var err error
			bad.Body, err = proto.Marshal(m)
			must(t, err)
			bad.Version = "spoiled-" + r.Version
			res.ByType[typ][i] = &bad
			return
		}
		t.Errorf("nothing to spoil: no %s at %s", typ, slices.Collect(maps.Keys(res.ByType)))
	}
	switch kind {
	case "cds":
		c := &clusterv3.Cluster{}
		change(envoy.ClusterType, c, func() { c.ConnectTimeout = durationpb.New(-time.Second) })
	case "lds":
		l := &listenerv3.Listener{}
		change(envoy.ListenerType, l, func() { l.FilterChains = append(l.FilterChains, l.FilterChains...) })
	case "rds":
		r := &routev3.RouteConfiguration{}
		change(envoy.RouteType, r, func() {
			again := proto.Clone(r.VirtualHosts[0]).(*routev3.VirtualHost)
			again.Name += "-again"
			r.VirtualHosts = append(r.VirtualHosts, again)
		})
	case "abort":
		r := &routev3.RouteConfiguration{}
		change(envoy.RouteType, r, func() {
			template, err := anypb.New(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: "/annual report/{*}"})
			must(t, err)
			rules := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{"poison": {
				Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
				Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_UriTemplate{
					UriTemplate: &corev3.TypedExtensionConfig{
						Name: "envoy.path.match.uri_template.uri_template_matcher", TypedConfig: template,
					},
				}}},
			}}}
			packed, err := anypb.New(&httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: rules}})
			must(t, err)
			for name := range r.TypedPerFilterConfig {
				r.TypedPerFilterConfig[name] = packed
			}
		})
	}
}

// wards are a control plane and three nodes with real Envoys.
type wards struct {
	*plane
	dir  string
	said string // by the last server
}

func (w *wards) in(t *testing.T) *wards {
	p := *w.plane
	p.t = t
	return &wards{plane: &p, dir: w.dir}
}

func openWards(t *testing.T) *wards {
	t.Helper()
	binary, err := nodeagent.LocateEnvoy(filepath.Join("..", "..", ".cache"))
	must(t, err)
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	host := netip.MustParseAddr("10.94.0.1")
	network := lab.Network{Bridges: []lab.Bridge{{
		Namespace: wardPrefix + "-host",
		Address:   netip.PrefixFrom(host, 24),
	}}}
	members := []string{"shop", "pay0", "pay1", "pay2"}
	for i, m := range members {
		network.Attachments = append(network.Attachments, lab.Attachment{
			Namespace: wardPrefix + "-" + m, Device: "eth0",
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 94, 0, byte(10 + i)}), 24),
			Bridge:  wardPrefix + "-host", Port: "v-" + m, Via: host,
		})
	}
	l, _, err := lab.Open(lab.Config{Prefix: wardPrefix, Dir: "/run/isthmus/" + wardPrefix, Network: network})
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	p.plant = func(d *Daemon) { d.build, d.stableAfter = poisoned(t), livedSoon }
	w := &wards{plane: p, dir: l.Dir()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.logs.String())
		}
	})
	for i := range 3 {
		w.write(fmt.Sprintf("pay%d.yaml", i), fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: pay%[1]d, namespace: default}
spec: {clusterIP: 10.94.1.%[1]d, selector: {app: pay%[1]d}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: pay%[1]d, namespace: default}
spec: {selector: {matchLabels: {app: pay%[1]d}}, rules: [{from: [{source: {principals: ["cards.example/ns/default/sa/shop"]}}]}]}
`, i))
	}
	w.start()
	for i, name := range members[1:] {
		w.serve(name)
		w.node(binary, fmt.Sprintf("node-%d", i), append([]string{name}, members[:1][:max(0, 1-i)]...))
	}
	return w
}

func (w *wards) serve(name string) {
	var l net.Listener
	must(w.t,
		netns.Do("/run/netns/"+wardPrefix+"-"+name,
			func() (err error) { l, err = net.Listen("tcp", "0.0.0.0:8080"); return err }))
	s := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, name) }),
	}
	go s.Serve(l)
	w.t.Cleanup(func() { s.Close() })
}

// node runs an agent in this process.
func (w *wards) node(binary, name string, members []string) {
	w.t.Helper()
	var workloads []string
	for _, m := range members {
		address := map[string]string{
			"shop": "10.94.0.10", "pay0": "10.94.0.11", "pay1": "10.94.0.12", "pay2": "10.94.0.13",
		}[m]
		workloads = append(workloads,
			fmt.Sprintf(`{name: %[1]s, namespace: default, serviceAccount: %[1]s, labels: {app: %[1]s}, netns: /run/netns/%[2]s-%[1]s, addresses: [%[3]s], ports: [{name: http, number: 8080}]}`, m, wardPrefix, address))
	}
	dir := filepath.Join(w.dir, name)
	must(w.t, os.MkdirAll(dir, 0o700))
	must(w.t, os.WriteFile(filepath.Join(dir, "token"), []byte(w.token(name, snapshot.RoleNode, "default/*")), 0o600))
	settings := fmt.Sprintf("name: %s\nrunDir: %[2]s/run\nstateDir: %[2]s/state\ncontrol: {addresses: [%q], tokenFile: %[2]s/token}\nenvoy: {path: %[4]s, concurrency: 1}\nhealth: {address: \"off\"}\nworkloads: [%[5]s]\n",
		name, dir, w.cfg.AgentAddress, binary, strings.Join(workloads, ", "))
	must(w.t, os.WriteFile(filepath.Join(dir, "agent.yaml"), []byte(settings), 0o600))
	cfg, err := nodeagent.LoadConfig(filepath.Join(dir, "agent.yaml"))
	must(w.t, err)
	cfg.Log = slog.New(slog.NewTextHandler(w.logs, nil)).With("agent", name)
	a, err := nodeagent.New(cfg)
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("agent %s: %v", name, err)
		}
	})
}

// get is the status of a request by shop; 0 when there is none.
func (w *wards) get(server, path string) int {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = netns.Do("/run/netns/"+wardPrefix+"-shop",
				func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, addr); return err })
			return c, err
		},
	}}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://10.94.1."+server[3:]+path, nil)
	must(w.t, err)
	req.Host = server + ".default"
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	w.said = string(body)
	return resp.StatusCode
}

// all waits until every server answers shop in its way, and says how long that took.
func (w *wards) all(what string, want ...int) {
	w.t.Helper()
	began, got := time.Now(), make([]int, 3)
	for !slices.Equal(got, want) {
		if time.Since(began) > patience {
			w.t.Fatalf("%s: got %v, want %v; the last answer was %q", what, got, want, w.said)
		}
		for i := range got {
			got[i] = w.get(fmt.Sprintf("pay%d", i), "/")
		}
	}
	w.t.Logf("%s: after %s", what, time.Since(began).Round(10*time.Millisecond))
}

// lived waits until what is in force counts as lived with.
func (w *wards) lived() {
	w.t.Helper()
	waittest.Pace(livedSoon) // what was just written is told by then
	w.plane.lived()
}

// running waits until every Envoy runs and its agent has said so; how often each was started again.
func (w *wards) running() (restarts [3]int) {
	w.t.Helper()
	eventually(w.t, "the nodes are there", func() bool {
		for i := range restarts {
			p := w.proxy(fmt.Sprintf("node-%d", i))
			restarts[i] = p.Envoy.Restarts
			if !p.Connected || !p.Envoy.Running {
				return false
			}
		}
		return true
	})
	return restarts
}

func (w *wards) restarts(name string) int { return w.proxy(name).Envoy.Restarts }

// quarantined waits until a proxy is told all but one object, and findings name it.
func (w *wards) quarantined(proxy, object string) {
	w.t.Helper()
	began := time.Now()
	eventually(w.t, object+" is in quarantine at "+proxy, func() bool {
		c := w.proxy(proxy).Contained
		return c != nil && !c.Held && !c.Searching && len(c.Quarantined) == 1 && c.Quarantined[0].Object == object
	})
	w.t.Logf("%s is in quarantine at %s after %s", object, proxy, time.Since(began).Round(10*time.Millisecond))
	eventually(w.t, "a finding names "+proxy, func() bool { return strings.Contains(w.found("ISM0230"), proxy) })
	contains(w.t, "finding", w.found("ISM0230"), object, "poison.yaml", proxy, "Fix: change the object, or remove it")
}

// well waits until no proxy is contained.
func (w *wards) well() {
	w.t.Helper()
	eventually(w.t, "nobody is contained", func() bool {
		for _, p := range w.status().Proxies {
			if p.Contained != nil {
				return false
			}
		}
		return w.found("ISM0230") == ""
	})
}
