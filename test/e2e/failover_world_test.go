//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/snapshot"
)

const foPrefix = "isthmus-t-fo"

// foMesh is one of three meshes: a control plane, a node with one workload named app, and a gateway.
type foMesh struct {
	world  *foWorld
	name   string
	subnet byte
	admin  *grpc.ClientConn
	app    *foBackend
	// the agent of its gateway
	gateway *lab.Process
}

// foDrain are the drain times of agents that leave in order; the others end at once.
var foDrain = map[string]string{"one gateway": "1s"}

// foWorld is the mesh "shop", whose imports the meshes "one" and "two" serve.
type foWorld struct {
	lab    *lab.Lab
	envoy  string
	meshes map[string]*foMesh
}

func (m *foMesh) ns(part string) string { return foPrefix + "-" + m.name + "-" + part }
func (m *foMesh) file(name string) string {
	return filepath.Join("/run/isthmus/"+foPrefix, m.name, name)
}

func (m *foMesh) inside(last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, m.subnet, 0, last})
}
func (m *foMesh) outer() netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, m.subnet}) }

func newFailoverWorld(t *testing.T) *foWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root, for example `sudo make test`")
	}
	w := &foWorld{meshes: map[string]*foMesh{}}
	network := lab.Network{Bridges: []lab.Bridge{{Namespace: foPrefix + "-link"}}}
	for i, name := range []string{"one", "shop", "two"} {
		m := &foMesh{world: w, name: name, subnet: byte(31 + i)}
		w.meshes[name] = m
		network.Bridges = append(network.Bridges,
			lab.Bridge{Namespace: m.ns("host"), Address: netip.PrefixFrom(m.inside(1), 24)})
		network.Attachments = append(network.Attachments,
			lab.Attachment{
				Namespace: m.ns("app"), Device: "eth0", Address: netip.PrefixFrom(m.inside(11), 24),
				Bridge: m.ns("host"), Port: "v-app", Via: m.inside(1),
			},
			lab.Attachment{
				Namespace: m.ns("gw"), Device: "eth0", Address: netip.PrefixFrom(m.inside(2), 24),
				Bridge: m.ns("host"), Port: "v-gw",
			},
			lab.Attachment{
				Namespace: m.ns("gw"), Device: "eth1", Address: netip.PrefixFrom(m.outer(), 24),
				Bridge: foPrefix + "-link", Port: "v-" + name,
			},
		)
	}
	l, removed, err := lab.Open(lab.Config{Prefix: foPrefix, Dir: "/run/isthmus/" + foPrefix, Network: network})
	must(t, err)
	for _, r := range removed {
		t.Log("left by an earlier run:", r)
	}
	w.lab = l
	t.Cleanup(func() {
		if t.Failed() {
			w.tellLogs(t)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, foPrefix)
	})
	w.envoy, err = node.LocateEnvoy(filepath.Join("..", "..", ".cache"))
	must(t, err)
	var up sync.WaitGroup
	for _, m := range w.meshes {
		m.app = &foBackend{mesh: m}
		m.app.start(t)
		up.Go(func() { m.begin(t) })
	}
	up.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, name := range []string{"one", "two"} {
		w.peer(t, name)
	}
	w.meshes["shop"].write(t, "config/imports.yaml", foImports)
	return w
}

const foConfig = `
apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: %[1]s}
spec:
  trustDomain: %[1]s.example
  federation: {gatewayAddresses: ["%[2]s:15443"]}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: app, namespace: default}
spec:
  selector: {matchLabels: {app: app}}
  action: ALLOW
  rules: [{}]
---
apiVersion: v1
kind: Service
metadata: {name: %[3]s, namespace: default}
spec:
  selector: {app: app}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
`

const foExports = `
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: default}
spec:
  selector: {app: app}
  ports: [{name: tcp-raw, port: 7000, targetPort: 7000}]
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: web, namespace: default}
spec: {service: web, port: 80, to: [{peer: shop, rules: [{}]}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: bank, namespace: default}
spec: {service: bank, port: 7000, to: [{peer: shop}]}
`

// foImports: what one and two serve in turn, together, as raw TCP, and before a local standby; and what one serves
// alone.
const foImports = `
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: first, namespace: default}
spec: {port: 80, callers: [app], from: [{peer: one, name: web}, {peer: two, name: web, priority: 1}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: half, namespace: default}
spec: {port: 80, callers: [app], from: [{peer: one, name: web}, {peer: two, name: web}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: raw, namespace: default}
spec: {port: 7000, protocol: TCP, callers: [app], from: [{peer: one, name: bank}, {peer: two, name: bank, priority: 1}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: backed, namespace: default}
spec: {port: 80, callers: [app], local: {priority: 1}, from: [{peer: one, name: web}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: only, namespace: default}
spec: {port: 80, callers: [app], from: [{peer: one, name: web}]}
---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: only-raw, namespace: default}
spec: {port: 7000, protocol: TCP, callers: [app], from: [{peer: one, name: bank}]}
`

// begin starts a mesh whose parts have never joined.
func (m *foMesh) begin(t *testing.T) {
	service := "web"
	if m.name == "shop" {
		service = "backed"
	} else {
		m.write(t, "config/exports.yaml", foExports)
	}
	m.write(t, "config/mesh.yaml", fmt.Sprintf(foConfig, m.name, m.outer(), service))
	host := m.inside(1).String()
	m.write(t, "control.yaml", map[string]any{
		"configDir": m.file("config"), "stateFile": m.file("state.db"), "socket": m.file("control.sock"),
		"agentAddress": host + ":15012", "peeringAddress": host + ":15013", "metricsAddress": host + ":15020",
		"healthAddress": "127.0.0.1:15021",
	})
	agent := func(kind string, more map[string]any) {
		settings := map[string]any{
			"name": m.name + "-" + kind, "runDir": m.file(kind + "/run"), "stateDir": m.file(kind + "/state"),
			"control": map[string]any{"addresses": []string{host + ":15012"}, "tokenFile": m.file(kind + ".token")},
			"envoy": map[string]any{
				"path": m.world.envoy, "concurrency": 1,
				"drainTime": cmp.Or(foDrain[m.name+" "+kind], "0s"),
			},
			"health": map[string]any{"address": "off"},
		}
		for k, v := range more {
			settings[k] = v
		}
		m.write(t, kind+".yaml", settings)
	}
	agent("node", map[string]any{"workloads": []any{map[string]any{
		"name": "app", "namespace": "default", "serviceAccount": "app", "labels": map[string]string{"app": "app"},
		"netns": lab.NetnsPath(m.ns("app")), "addresses": []string{m.inside(11).String()},
		"ports": []any{
			map[string]any{"name": "http-web", "number": 8080},
			map[string]any{"name": "tcp-raw", "number": 7000},
		},
		"readiness": map[string]any{"tcp": map[string]any{"port": 8080}},
	}}})
	agent("gateway", map[string]any{"gateway": map[string]any{
		"serviceAccount": "gateway", "innerAddress": m.inside(2).String(), "outerAddress": m.outer().String(),
	}})
	m.start(t, "control", "host")
	var err error
	m.admin, err = grpc.NewClient("unix://"+m.file("control.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(t, err)
	t.Cleanup(func() { m.admin.Close() })
	m.token(t, "node", adminapi.TokenRequest{
		Node: m.name + "-node", Role: snapshot.RoleNode, TTL: 5 * time.Minute,
		Addresses: []netip.Prefix{netip.PrefixFrom(m.inside(0), 24)},
		Workloads: []grant.Workload{{
			Namespace: "default", Name: "app", ServiceAccount: "app",
			Labels: map[string]string{"app": "app"},
		}},
	})
	m.token(t, "gateway", adminapi.TokenRequest{
		Node: m.name + "-gateway", Role: snapshot.RoleGateway, TTL: 5 * time.Minute,
		Identities: []string{"isthmus-system/gateway"},
	})
	m.start(t, "node", "host")
	m.start(t, "gateway", "gw")
	eventually(t, 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		st, err := adminapi.Call[adminapi.Empty, adminapi.StatusResponse](ctx, m.admin, "Status", &adminapi.Empty{})
		switch {
		case err != nil:
			return err
		case len(st.Proxies) != 2 || !st.Proxies[0].Envoy.Running || !st.Proxies[1].Envoy.Running:
			return fmt.Errorf("%s: %d proxies", m.name, len(st.Proxies))
		}
		return nil
	})
}

func (m *foMesh) start(t *testing.T, kind, where string) {
	t.Helper()
	p, err := m.world.lab.Start(lab.Command{
		Name: m.name + "-" + kind, Namespace: m.ns(where), Path: filepath.Join(binaries, "isthmus"),
		Args: []string{kind, "--config", m.file(kind + ".yaml")},
	})
	must(t, err)
	if kind == "gateway" {
		m.gateway = p
	}
}

func (m *foMesh) token(t *testing.T, kind string, r adminapi.TokenRequest) {
	t.Helper()
	answer, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](t.Context(), m.admin, "CreateToken", &r)
	must(t, err)
	m.write(t, kind+".token", answer.Token+"\n")
}

func (m *foMesh) write(t *testing.T, name string, content any) {
	t.Helper()
	text, ok := content.(string)
	if !ok {
		b, err := yaml.Marshal(content)
		must(t, err)
		text = string(b)
	}
	path := m.file(name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(name))
	must(t, os.WriteFile(next, []byte(text), 0o600))
	must(t, os.Rename(next, path))
}

// peer makes a mesh a peer of the shop's.
func (w *foWorld) peer(t *testing.T, name string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		invite, err := adminapi.Call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](ctx, w.meshes[name].admin,
			"PeerInvite",
			&adminapi.PeerInviteRequest{Peer: "shop", TTL: 5 * time.Minute})
		if err != nil {
			return err
		}
		_, err = adminapi.Call[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](ctx, w.meshes["shop"].admin,
			"PeerAccept",
			&adminapi.PeerAcceptRequest{Token: invite.Token, Name: name})
		return err
	})
}

func (m *foMesh) order(t *testing.T, verb, peer string) {
	t.Helper()
	_, err := adminapi.Call[adminapi.PeerRequest, adminapi.Empty](t.Context(), m.admin, verb,
		&adminapi.PeerRequest{Peer: peer})
	must(t, err)
}

// dark has every packet to and from a mesh's gateway vanish, and nobody is told.
func (m *foMesh) dark(t *testing.T, dark bool) {
	t.Helper()
	must(t, lab.Inside(foPrefix+"-link", func() error {
		port, err := netlink.LinkByName("v-" + m.name)
		if err != nil {
			return err
		}
		if dark {
			return netlink.LinkSetDown(port)
		}
		return netlink.LinkSetUp(port)
	}))
}

// kill ends every process of a mesh, Envoys included, without a word.
func (m *foMesh) kill(t *testing.T) {
	t.Helper()
	for _, part := range []string{"host", "gw"} {
		h, err := netns.GetFromName(m.ns(part))
		must(t, err)
		var own syscall.Stat_t
		must(t, syscall.Fstat(int(h), &own))
		must(t, h.Close())
		all, err := filepath.Glob("/proc/[0-9]*/ns/net")
		must(t, err)
		for _, path := range all {
			var st syscall.Stat_t
			pid, err := strconv.Atoi(strings.Split(path, "/")[2])
			if err == nil && syscall.Stat(path, &st) == nil && st.Ino == own.Ino && st.Dev == own.Dev {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
	}
}

func (m *foMesh) restart(t *testing.T) {
	t.Helper()
	m.start(t, "control", "host")
	m.start(t, "node", "host")
	m.start(t, "gateway", "gw")
}

func (w *foWorld) tellLogs(t *testing.T) {
	for name := range w.meshes {
		for _, kind := range []string{"control", "node", "gateway"} {
			b, err := os.ReadFile(w.lab.LogFile(name + "-" + kind))
			if err != nil {
				t.Log(err)
				continue
			}
			t.Logf("%s-%s:\n%s", name, kind, b[max(0, len(b)-3000):])
		}
	}
}

// foBackend is the program of a workload: HTTP on 8080, and on 7000 raw TCP where the server speaks first.
type foBackend struct {
	mesh *foMesh

	mu    sync.Mutex // guards the rest
	parts []io.Closer
	conns map[net.Conn]bool
}

func (b *foBackend) start(t *testing.T) {
	t.Helper()
	listen := func(port string) (l net.Listener) {
		must(t, lab.Inside(b.mesh.ns("app"), func() (err error) { l, err = net.Listen("tcp", ":"+port); return err }))
		return l
	}
	web, raw := listen("8080"), listen("7000")
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("by", b.mesh.name)
			switch {
			case r.URL.Path != "/fail":
				io.WriteString(w, b.mesh.name)
			case r.Header.Get("content-type") == "application/grpc": // an answer without a message
				w.Header().Set("content-type", "application/grpc")
				w.Header().Set("grpc-status", "14")
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}),
		Protocols: new(http.Protocols),
	}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	b.mu.Lock()
	b.parts, b.conns = []io.Closer{h, raw}, map[net.Conn]bool{}
	b.mu.Unlock()
	go h.Serve(web)
	go func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			go func() {
				io.WriteString(c, b.mesh.name+"\n")
				io.Copy(c, c)
				c.Close()
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.conns, c)
			}()
		}
	}()
	t.Cleanup(b.stop)
}

// stop ends it as if the process had been killed.
func (b *foBackend) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		p.Close()
	}
	for c := range b.conns {
		c.Close()
	}
	b.parts, b.conns = nil, nil
}

// foClient calls as the shop's workload does.
type foClient struct{ ns string }

func (c foClient) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = lab.Inside(c.ns, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// address of a name, as the agent's DNS answers it.
func (c foClient) address(name string) (string, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.dial(ctx, network, "127.0.0.1:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	addrs, err := r.LookupNetIP(ctx, "ip4", name+".default.svc.cluster.local.")
	if err != nil {
		return "", err
	}
	return addrs[0].String(), nil
}

// get asks once; what is not 200 is an error.
func (c foClient) get(client *http.Client, addr, name string) (string, error) {
	req, err := http.NewRequest("GET", "http://"+addr+"/", nil)
	if err != nil {
		return "", err
	}
	req.Host = name + ".default"
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return string(body), err
}

func (c foClient) client(keep bool) *http.Client {
	return &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: !keep, MaxIdleConnsPerHost: 100},
	}
}

func (c foClient) clientHTTP2() *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: c.dial, Protocols: p}}
}

// fail has a program answer with an error, of HTTP or of gRPC by the type of what is sent. by says which one did.
func (c foClient) fail(client *http.Client, addr, name, contentType string) (by string, err error) {
	req, err := http.NewRequest("POST", "http://"+addr+"/fail", nil)
	if err != nil {
		return "", err
	}
	req.Host = name + ".default"
	req.Header.Set("content-type", contentType)
	req.Header.Set("te", "trailers")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable && resp.Header.Get("grpc-status") != "14" {
		err = fmt.Errorf("%d, grpc-status %q", resp.StatusCode, resp.Header.Get("grpc-status"))
	}
	return resp.Header.Get("by"), err
}

// hear reads what a server says first.
func (c foClient) hear(addr string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 16)
	n, err := conn.Read(b)
	if n == 0 && err == nil {
		err = errors.New("not a byte")
	}
	return strings.TrimSpace(string(b[:n])), err
}
