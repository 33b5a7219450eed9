//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/yamltest"
)

// TestWorkloads attacks and breaks one mesh: a control plane, two nodes with an Envoy each, callers on the one and
// servers on the other. Certificates live for ten seconds, and one caller asks one server all the while: neither may
// fail once.
func TestWorkloads(t *testing.T) {
	s := openShop(t, shopMesh, map[string][]member{"front": callers, "back": servers})
	steady := s.startLoad(t, "alice", "steady", 40)
	began := time.Now()
	slow, patient := s.beginDrips(t), s.beginPatience(t)
	t.Run("raw requests", s.rawRequests)
	t.Run("policies", s.policies)
	t.Run("server speaks first", s.serverFirst)
	t.Run("http2 and grpc", s.talk)
	t.Run("upgrades", s.upgrades)
	t.Run("versions of HTTP", s.versions)
	t.Run("a workload calls itself", s.itself)
	t.Run("strict", s.strict)
	t.Run("modes", s.modes)
	t.Run("outbound", s.outbound)
	t.Run("callers of peers", s.assertedCallers)
	t.Run("readiness", s.readiness)
	t.Run("refusals", s.refusals)
	t.Run("slow drip", slow.hungUpOn)
	t.Run("patience", patient)
	t.Run("short certificates", func(t *testing.T) { s.shortCertificates(t, steady, began) })
	t.Run("control plane killed", s.controlKilled)
	t.Run("Envoy killed", s.envoyKilled)
	t.Run("no plaintext on the wire", s.noPlaintext)
}

const (
	shopDomain = "shop.example"
	shopHost   = "10.93.0.1"
	outsider   = "out" // a namespace on the same wire, outside the mesh
)

// member is a workload of the mesh.
type member struct {
	name, namespace, app string
	address              string
	ports                []int
	readiness            string // path at port 8080
}

var (
	callers = []member{
		{name: "alice", namespace: "default", address: "10.93.0.11"},
		{name: "bob", namespace: "default", address: "10.93.0.12"},
		{name: "carol", namespace: "other", address: "10.93.0.13"},
		{name: "lonely", namespace: "lonely", address: "10.93.0.14"},
	}
	servers = []member{
		{name: "web", namespace: "default", address: "10.93.0.21", ports: []int{8080, 7000, 7001}},
		{name: "steady", namespace: "default", address: "10.93.0.22", ports: []int{8080}},
		{name: "pair", namespace: "default", address: "10.93.0.23", ports: []int{8080}},
		{name: "mixed", namespace: "default", address: "10.93.0.24", ports: []int{8080, 7000, 7001, 8082, 8083}},
		{
			name: "pool-1", app: "pool", namespace: "default", address: "10.93.0.25", ports: []int{8080},
			readiness: "/ready",
		},
		{
			name: "pool-2", app: "pool", namespace: "default", address: "10.93.0.26", ports: []int{8080},
			readiness: "/ready",
		},
		{
			name: "talk", namespace: "default", address: "10.93.0.27",
			ports: []int{http2Port, grpcPort, httpGRPCPort, streamsPort},
		},
	}
)

// shop is the mesh under test.
type shop struct {
	prefix string // of the names of its namespaces: each test has its own, and the same in each run
	lab    *lab.Lab
	envoy  string
	canary string // in all that is said inside the mesh, and so never to be seen on the wire
	wire   *sniffer
	apps   map[string]*app // by "workload:port"
	procs  map[string]*lab.Process
	nodes  map[string][]member
	marker int
	heap   int                         // MiB, at which Envoys shed load; 0 is the default
	agents string                      // the program that agents are; default isthmus as it is built
	stolen map[string]*tls.Certificate // by caller
	// database is shared by the control planes "control" and "second"; nil: there is one, with a file of its own.
	database *postgres.Config
	attached map[string]string // node → the control plane to which it goes first; default "control"
}

// ports of the control planes are 15012 and so on, and so much more.
var morePorts = map[string]int{"control": 0, "second": 100}

func controlAddress(plane string, port int) string {
	return fmt.Sprintf("%s:%d", shopHost, port+morePorts[plane])
}

// drainTimes of the nodes that leave in order; the others end at once.
var drainTimes = map[string]string{"leaver": "2s"}

// netns is the name of a workload's network namespace.
func (s *shop) netns(name string) string { return s.prefix + "-" + name }

// openShop starts the mesh; nodes says which of its members live where.
func openShop(t *testing.T, mesh string, nodes map[string][]member, with ...func(*shop)) *shop {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	envoy, err := envoyproc.Locate(filepath.Join("..", "..", ".cache"))
	need(t, err)
	s := &shop{
		prefix: fmt.Sprintf("isthmus-t-%06x", crc32.ChecksumIEEE([]byte(t.Name()))>>8),
		envoy:  envoy, canary: fmt.Sprintf("canary%x", time.Now().UnixNano()), apps: map[string]*app{},
		procs: map[string]*lab.Process{}, nodes: nodes, stolen: map[string]*tls.Certificate{},
	}
	for _, set := range with {
		set(s)
	}
	l, _, err := lab.Open(lab.Config{Prefix: s.prefix, Dir: "/run/isthmus/" + s.prefix, Network: s.network()})
	need(t, err)
	s.lab = l
	t.Cleanup(func() {
		if t.Failed() {
			s.tellLogs(t)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, s.prefix)
	})
	s.wire = sniff(t, s.netns("host"), s.canary)
	for _, m := range servers {
		for _, port := range m.ports {
			s.serve(t, m, port)
		}
	}
	s.write(t, "mesh.yaml", mesh)
	s.write(t, "steady.yaml", steadyPolicies)
	s.startControl(t)
	if s.database != nil {
		s.startSecond(t)
	}
	for name, members := range nodes {
		s.startNode(t, name, members)
	}
	within(t, 20*time.Second, "the mesh is up", func() error { return s.ready(t.Context()) })
	within(t, 5*time.Second, "a first request", func() error { return s.expect(200, s.get("alice", "steady", "/")) })
	return s
}

func (s *shop) network() lab.Network {
	host := netip.MustParseAddr(shopHost)
	n := lab.Network{Bridges: []lab.Bridge{{Namespace: s.netns("host"), Address: netip.PrefixFrom(host, 24)}}}
	attach := func(name, address string) {
		n.Attachments = append(n.Attachments, lab.Attachment{
			Namespace: s.netns(name), Device: "eth0", Address: netip.PrefixFrom(netip.MustParseAddr(address), 24),
			Bridge: s.netns("host"), Port: "v-" + name, Via: host,
		})
	}
	for _, m := range slices.Concat(callers, servers, rollers, idlers) {
		attach(m.name, m.address)
	}
	attach(outsider, "10.93.0.66")
	return n
}

func (s *shop) path(parts ...string) string {
	return filepath.Join(append([]string{s.lab.Dir()}, parts...)...)
}

// write replaces one file of the configuration folder, as a careful editor does.
func (s *shop) write(t *testing.T, name, text string) {
	t.Helper()
	need(t, s.replace(s.path("config", name), []byte(text)))
}

func (s *shop) replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	return errors.Join(os.WriteFile(next, content, 0o600), os.Rename(next, path))
}

func (s *shop) settings(t *testing.T, name string, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	need(t, err)
	need(t, s.replace(s.path(name), text))
	return s.path(name)
}

func (s *shop) startControl(t *testing.T) {
	t.Helper()
	need(t, s.runControl(t))
	within(t, 10*time.Second, "the control plane answers", func() error { _, err := s.status(t.Context()); return err })
}

func (s *shop) runControl(t *testing.T) error { return s.runPlane(t, "control") }

func (s *shop) runPlane(t *testing.T, plane string) error {
	settings := map[string]any{
		"configDir": s.path("config"), "stateFile": s.path("state.db"), "socket": s.path(plane + ".sock"),
		"agentAddress": controlAddress(plane, 15012), "peeringAddress": controlAddress(plane, 15013),
		"metricsAddress": controlAddress(plane, 15020),
		"healthAddress":  fmt.Sprintf("127.0.0.1:%d", 15021+morePorts[plane]),
	}
	if d := s.database; d != nil {
		settings["postgres"] = map[string]any{
			"addresses": d.Addresses, "database": d.Database, "user": d.User, "passwordFile": d.PasswordFile,
		}
		settings["keyFile"], settings["configCopies"] = s.path("key"), s.path(plane, "copies")
		delete(settings, "stateFile")
	}
	p, err := s.lab.Start(lab.Command{
		Name: plane, Namespace: s.netns("host"), Path: filepath.Join(binaries, "isthmus"),
		Args: []string{"control", "--config", s.settings(t, plane+".yaml", settings)},
	})
	s.procs[plane] = p
	return err
}

func (s *shop) startNode(t *testing.T, name string, members []member) {
	t.Helper()
	var workloads []any
	var identities []string
	for _, m := range members {
		w := map[string]any{
			"name": m.name, "namespace": m.namespace, "serviceAccount": m.account(),
			"labels": map[string]string{"app": m.account()},
			"netns":  lab.NetnsPath(s.netns(m.name)), "addresses": []string{m.address},
		}
		var ports []any
		for _, p := range m.ports {
			ports = append(ports, map[string]any{"name": fmt.Sprintf("p%d", p), "number": p})
		}
		w["ports"] = ports
		if m.readiness != "" {
			w["readiness"] = map[string]any{
				"http":   map[string]any{"port": 8080, "path": m.readiness},
				"period": "200ms", "timeout": "500ms",
			}
		}
		workloads = append(workloads, w)
		identities = append(identities, m.namespace+"/"+m.account())
	}
	slices.Sort(identities)
	token, err := admin[adminapi.TokenRequest, adminapi.TokenResponse](t.Context(), s, "CreateToken",
		&adminapi.TokenRequest{
			Node: name, Role: snapshot.RoleNode, Identities: slices.Compact(identities), TTL: time.Minute,
		})
	need(t, err)
	need(t, os.WriteFile(s.path(name+".token"), []byte(token.Token+"\n"), 0o600))
	path := s.settings(t, name+".yaml", map[string]any{
		"name": name, "runDir": s.path(name, "run"), "stateDir": s.path(name, "state"),
		"control": map[string]any{"addresses": s.controlsOf(name), "tokenFile": s.path(name + ".token")},
		"envoy": map[string]any{
			"path": s.envoy, "concurrency": 1, "maxHeapMiB": s.heap,
			"drainTime": cmp.Or(drainTimes[name], "0s"),
		}, "workloads": workloads,
		"health": map[string]any{"address": "off"},
	})
	p, err := s.lab.Start(lab.Command{
		Name: name, Namespace: s.netns("host"), Path: cmp.Or(s.agents, filepath.Join(binaries, "isthmus")),
		Args: []string{"node", "--config", path},
	})
	need(t, err)
	s.procs[name] = p
}

// controlsOf are the control planes to which a node goes, in order.
func (s *shop) controlsOf(node string) []string {
	first := cmp.Or(s.attached[node], "control")
	all := []string{controlAddress(first, 15012)}
	for plane := range morePorts {
		if s.database != nil && plane != first {
			all = append(all, controlAddress(plane, 15012))
		}
	}
	return all
}

// account is the service account, and the app label.
func (m member) account() string {
	if m.app != "" {
		return m.app
	}
	return m.name
}

func admin[Req, Resp any](ctx context.Context, s *shop, method string, req *Req) (*Resp, error) {
	return overSocket[Req, Resp](ctx, s.path("control.sock"), 5*time.Second, method, req)
}

func (s *shop) status(ctx context.Context) (*adminapi.StatusResponse, error) {
	return admin[adminapi.Empty, adminapi.StatusResponse](ctx, s, "Status", &adminapi.Empty{})
}

// ready says what the mesh still waits for.
func (s *shop) ready(ctx context.Context) error {
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	if s.database != nil {
		second, err := s.statusOf(ctx, "second")
		if err != nil {
			return err
		}
		st.Proxies = hereOrThere(st.Proxies, second.Proxies)
	}
	return allUp(st, len(s.nodes))
}

func (s *shop) tellLogs(t *testing.T) {
	for _, path := range []string{
		"logs/control.log", "logs/second.log", "logs/front.log", "logs/back.log", "front/run/envoy.log",
		"back/run/envoy.log",
	} {
		tellEnd(t, s.path(path))
	}
	if dir := os.Getenv("ISTHMUS_TEST_LOGS"); dir != "" { // a debugging aid of this test, not of the product
		t.Logf("kept in %s: %v", dir, os.CopyFS(filepath.Join(dir, fmt.Sprint(time.Now().Unix())),
			os.DirFS(s.path("logs"))))
	}
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits until fn has nothing to complain of, and says how long that took.
func within(t *testing.T, most time.Duration, what string, fn func() error) time.Duration {
	t.Helper()
	return waittest.Within(t, most, what, fn)
}

// id is the principal of a workload as a policy writes it.
func id(namespace, account string) string {
	return shopDomain + "/ns/" + namespace + "/sa/" + account
}

// policy is the YAML of one AuthorizationPolicy.
func policy(namespace, name, spec string) string { return yamltest.Policy(namespace, name, spec) }

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n"+by)
}

var shopMesh = yamltest.Object("isthmus.dev/v1alpha1", "Mesh", "", "shop",
	"{trustDomain: shop.example, certificateTTL: 10s}") +
	yamltest.Namespace("default") +
	yamltest.Namespace("other") +
	yamltest.Namespace("lonely") +
	yamltest.Namespace("isthmus-system") +
	yamltest.Service("default", "web", "web", "name: http, port: 80, targetPort: 8080", "name: tcp-banner, port: 7000",
		"name: tcp-second, port: 7001") +
	yamltest.Service("default", "alias", "web", "name: http, port: 80, targetPort: 8080") +
	yamltest.Service("default", "steady", "steady", "name: http, port: 80, targetPort: 8080") +
	yamltest.Service("default", "pair", "pair", "name: http, port: 80, targetPort: 8080") +
	yamltest.Service("default", "mixed", "mixed", "name: http, port: 80, targetPort: 8080", "name: tcp, port: 7000",
		"name: tcp-off, port: 7001", "name: http-off, port: 8082", "name: http-on, port: 8083") +
	yamltest.Service("default", "pool", "pool", "name: http, port: 80, targetPort: 8080") +
	yamltest.Service("default", "talk", "talk", "name: http2, port: 8090", "name: grpc, port: 9090",
		"name: http-rpc, port: 9091", "name: http2-streams, port: 8091") +
	yamltest.Object("security.istio.io/v1", "PeerAuthentication", "default", "mixed", `
selector: {matchLabels: {app: mixed}}
mtls: {mode: PERMISSIVE}
portLevelMtls:
  7001: {mode: DISABLE}
  8082: {mode: DISABLE}
  8083: {mode: STRICT}
`)

// steadyPolicies stay as they are in all tests.
var steadyPolicies = policy("default", "steady", `
selector: {matchLabels: {app: steady}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}], to: [{operation: {methods: [GET]}}]}]`) +
	policy("default", "talk", `
selector: {matchLabels: {app: talk}}
rules:
- from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}]
  to: [{operation: {methods: [GET], paths: [/open]}}, {operation: {methods: [POST], paths: [/grpc.health.v1.Health/Check, /grpc.health.v1.Health/Watch]}}]`) +
	policy("default", "pool", `
selector: {matchLabels: {app: pool}}
rules: [{from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}]}]`) +
	policy("default", "mixed", `
selector: {matchLabels: {app: mixed}}
rules:
- {from: [{source: {principals: ["shop.example/ns/default/sa/alice"]}}]}
- {to: [{operation: {paths: [/open]}}]}
- {to: [{operation: {ports: ["8082", "7001"]}}]}`)
