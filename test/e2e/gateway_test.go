//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// The world of the gateway tests is one network namespace: inside addresses begin with 10.98., outside ones with
// 192.0.2.
const (
	gwPrefix      = "isthmus-t-gw"
	gwWorld       = gwPrefix + "-world"
	gwDir         = "/run/isthmus/" + gwPrefix
	gwControl     = "10.98.1.1"
	gwInner       = "10.98.1.2"
	gwOuter       = "192.0.2.1"
	gwEgress      = gwInner + ":15444"
	gwIngress     = gwOuter + ":15443"
	gwConnections = 1600
	gwGatewayID   = "spiffe://home.example/ns/isthmus-system/sa/edge"
	gwWebID       = "spiffe://home.example/ns/default/sa/web"
)

// TestGateway attacks one real gateway: control plane, agent and Envoy are those that are shipped; the peers' gateways,
// the local callers and the local workloads are small programs of this test, so that they can misbehave.
func TestGateway(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	slow := g.beginDrips()
	t.Run("egress", g.testEgress)
	t.Run("false peers", g.testFalsePeers)
	t.Run("ingress", g.testIngress)
	t.Run("raw requests", g.testRawRequests)
	t.Run("what is said to peers", g.testAnswers)
	t.Run("control", g.testControl)
	t.Run("peering", g.testPeering)
	t.Run("probes", g.testProbes)
	t.Run("slow drip", slow.hungUpOn)
	t.Run("log and counts", g.testLogAndCounts)
	t.Run("answers of applications", g.testApplicationsAnswers)
	t.Run("shares of connections", g.testShares)
	t.Run("certificates with two names", g.testTwoNames)
	t.Run("callers of a raw import", g.testRawCallers)
	t.Run("cut", g.testCut)
}

// gateway is the mesh "home" with its one gateway, and everybody around it.
type gateway struct {
	lab   *lab.Lab
	admin *grpc.ClientConn
	node  *gwNode
	peers map[string]*gwPeer
	api   *gwServer // workload behind the HTTP exports
	bank  *gwServer // workload behind the TCP export
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace: run it as root, for example `sudo make test`")
	}
	l, removed, err := lab.Open(lab.Config{
		Prefix: gwPrefix, Dir: gwDir,
		Network: lab.Network{Bridges: []lab.Bridge{{Namespace: gwWorld}}},
	})
	must(t, err)
	for _, r := range removed {
		t.Log("left by an earlier run:", r)
	}
	g := &gateway{lab: l, peers: map[string]*gwPeer{}}
	t.Cleanup(func() {
		if t.Failed() {
			g.tellLogs(t)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, gwPrefix)
	})
	must(t, lab.Inside(gwWorld, ownAddresses))
	g.makePeers(t)
	g.writeConfig(t)
	g.startControl(t)
	g.startGateway(t)
	g.node = g.joinNode(t)
	g.startWorkloads(t)
	eventually(t, 20*time.Second, func() error {
		if _, err := g.ask(g.peers["north"].client("api"), "GET", "/public"); err != nil {
			return fmt.Errorf("ingress: %w", err)
		}
		_, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/")
		return err
	})
	return g
}

// ownAddresses makes two whole subnets local to the namespace.
func ownAddresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, text := range []string{gwControl + "/24", gwOuter + "/24"} {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			return fmt.Errorf("add %s: %w", text, err)
		}
	}
	return nil
}

func (g *gateway) startControl(t *testing.T) {
	t.Helper()
	g.write(t, "control.yaml", map[string]any{
		"configDir": gwDir + "/config", "stateFile": gwDir + "/state.db", "socket": gwDir + "/control.sock",
		"agentAddress": gwControl + ":15012", "peeringAddress": gwControl + ":15013",
		"metricsAddress": gwControl + ":15020",
		"healthAddress":  "127.0.0.1:15021",
	})
	_, err := g.lab.Start(lab.Command{
		Name: "control", Namespace: gwWorld, Path: filepath.Join(binaries, "isthmus"),
		Args: []string{"control", "--config", gwDir + "/control.yaml"},
	})
	must(t, err)
	g.admin, err = grpc.NewClient("unix://"+gwDir+"/control.sock",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(t, err)
	t.Cleanup(func() { g.admin.Close() })
	eventually(t, 20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		st, err := adminapi.Call[adminapi.Empty, adminapi.StatusResponse](ctx, g.admin, "Status", &adminapi.Empty{})
		if err == nil {
			for _, f := range st.Findings {
				t.Log(f)
			}
		}
		return err
	})
}

func (g *gateway) startGateway(t *testing.T) {
	t.Helper()
	envoy, err := node.LocateEnvoy(filepath.Join("..", "..", ".cache"))
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	must(t, os.WriteFile(gwDir+"/gateway.token",
		[]byte(g.token(t, "edge-1", snapshot.RoleGateway, "isthmus-system/edge")), 0o600))
	g.write(t, "gateway.yaml", map[string]any{
		"name": "edge-1", "runDir": gwDir + "/run", "stateDir": gwDir + "/state",
		"control": map[string]any{"addresses": []string{gwControl + ":15012"}, "tokenFile": gwDir + "/gateway.token"},
		"envoy":   map[string]any{"path": envoy, "concurrency": 1, "maxConnections": gwConnections, "drainTime": "0s"},
		"health":  map[string]any{"address": "off"},
		"gateway": map[string]any{"serviceAccount": "edge", "innerAddress": gwInner, "outerAddress": gwOuter},
	})
	_, err = g.lab.Start(lab.Command{
		Name: "gateway", Namespace: gwWorld, Path: self,
		Args: []string{sandboxed, filepath.Join(binaries, "isthmus"), "gateway", "--config", gwDir + "/gateway.yaml"},
	})
	must(t, err)
}

const sandboxed = "sandboxed"

// sandboxedProgram is this process where it was started with that word: the program that follows, none of whose memory
// becomes code at run time, as its systemd unit has it (MemoryDenyWriteExecute=).
func sandboxedProgram() {
	if len(os.Args) < 3 || os.Args[1] != sandboxed {
		return
	}
	err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
	if err == nil || errors.Is(err, unix.EINVAL) { // which Linux before 6.3 does not have
		err = unix.Exec(os.Args[2], os.Args[2:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (g *gateway) token(t *testing.T, name string, role snapshot.Role, identity string) string {
	t.Helper()
	r, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](t.Context(), g.admin, "CreateToken",
		&adminapi.TokenRequest{Node: name, Role: role, Identities: []string{identity}, TTL: 5 * time.Minute})
	must(t, err)
	return r.Token
}

// write replaces a file below the lab's folder as a whole.
func (g *gateway) write(t *testing.T, name string, content any) {
	t.Helper()
	text, ok := content.(string)
	if !ok {
		b, err := yaml.Marshal(content)
		must(t, err)
		text = string(b)
	}
	path := filepath.Join(gwDir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	next := filepath.Join(gwDir, "."+filepath.Base(name))
	must(t, os.WriteFile(next, []byte(text), 0o600))
	must(t, os.Rename(next, path))
}

// counts are what the control plane knows of a peer.
func (g *gateway) counts(t *testing.T, peer string) agentapi.PeerCounts {
	t.Helper()
	r, err := adminapi.Call[adminapi.PeerRequest, adminapi.PeerListResponse](t.Context(), g.admin, "PeerList",
		&adminapi.PeerRequest{Peer: peer})
	must(t, err)
	return r.Peers[0].Counts
}

// accessLog is what the gateway wrote about every crossing, of all peers and of strangers.
func accessLog(t *testing.T) []map[string]any {
	t.Helper()
	files, err := filepath.Glob(gwDir + "/run/access*.log")
	must(t, err)
	var out []map[string]any
	for _, name := range files {
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var e map[string]any
			must(t, json.Unmarshal(lines.Bytes(), &e))
			out = append(out, e)
		}
	}
	return out
}

func (g *gateway) tellLogs(t *testing.T) {
	for _, name := range []string{g.lab.LogFile("control"), g.lab.LogFile("gateway"), gwDir + "/run/envoy.log"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("%s:\n%s", name, b[max(0, len(b)-6000):])
	}
}

// gwDial connects inside the world, from one of its addresses.
func gwDial(from, to string) (net.Conn, error) {
	var c net.Conn
	err := lab.Inside(gwWorld, func() (err error) {
		c, err = (&net.Dialer{Timeout: 3 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
		return err
	})
	return c, err
}

func gwListen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	must(t, lab.Inside(gwWorld, func() (err error) { l, err = net.Listen("tcp", addr); return err }))
	t.Cleanup(func() { l.Close() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually tries until fn finds nothing wrong.
func eventually(t *testing.T, most time.Duration, fn func() error) {
	t.Helper()
	waittest.Within(t, most, "as it should be", fn)
}

// holds reports every text of the list that is in s, whatever its case.
func holds(s string, list ...string) error {
	var errs []error
	for _, text := range list {
		if i := strings.Index(strings.ToLower(s), strings.ToLower(text)); i >= 0 {
			errs = append(errs, fmt.Errorf("%q is in %q", text, s[max(0, i-60):min(len(s), i+60)]))
		}
	}
	return errors.Join(errs...)
}
