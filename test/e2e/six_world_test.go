//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/snapshot"
)

const sixPrefix = "isthmus-t-six"

// isle is a mesh on a network of its own. A zero address is none of that IP version.
type isle struct {
	name         string
	host4, host6 netip.Addr
	gw4, gw6     netip.Addr // inside
	outer4       netip.Addr
	outer6       netip.Addr
	dwellers     []dweller
}

// dweller is a workload that calls, and serves at 8080 where it listens.
type dweller struct {
	name      string
	addresses []string // as it is registered, the preferred one first
	listens   string   // address; empty for all
	six       bool     // IPv6 of its namespace is on
}

// east has both IP versions and workloads of every kind, west knows only IPv6; so they have only IPv6 between their
// gateways.
var (
	east = isle{
		name:  "east",
		host4: netip.MustParseAddr("10.96.0.1"), host6: netip.MustParseAddr("fd96::1"),
		gw4: netip.MustParseAddr("10.96.0.2"), gw6: netip.MustParseAddr("fd96::2"),
		outer4: netip.MustParseAddr("198.51.100.11"), outer6: netip.MustParseAddr("2001:db8:5::11"),
		dwellers: []dweller{
			{name: "old", addresses: []string{"10.96.0.11"}},
			{name: "new", addresses: []string{"fd96::12"}, six: true},
			{name: "both", addresses: []string{"10.96.0.13", "fd96::13"}, six: true},
			{name: "turned", addresses: []string{"fd96::14", "10.96.0.14"}, listens: "10.96.0.14", six: true},
			{name: "without", addresses: []string{"10.96.0.15", "fd96::15"}}, // which it cannot have
		},
	}
	west = isle{
		name:  "west",
		host6: netip.MustParseAddr("fd97::1"), gw6: netip.MustParseAddr("fd97::2"),
		outer6:   netip.MustParseAddr("2001:db8:5::12"),
		dwellers: []dweller{{name: "shop", addresses: []string{"fd97::11"}, six: true}},
	}
)

// strait is both meshes and the water between them.
type strait struct {
	lab    *lab.Lab
	envoy  string
	canary string // in all that is said in a mesh, and so never to be seen on a wire
	wires  []*sniffer
}

func (i isle) netns(name string) string { return sixPrefix + "-" + i.name + "-" + name }

// host is the address of the control plane; IPv6 if there is one.
func (i isle) host(port int) string {
	return net.JoinHostPort(either(i.host6, i.host4).String(), fmt.Sprint(port))
}

func either(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

func (i isle) attach(n *lab.Network) {
	prefix := func(a netip.Addr, four, six int) netip.Prefix {
		if !a.IsValid() {
			return netip.Prefix{}
		}
		return netip.PrefixFrom(a, map[bool]int{true: four, false: six}[a.Is4()])
	}
	n.Bridges = append(n.Bridges, lab.Bridge{
		Namespace: i.netns("host"), Address: prefix(i.host4, 24, 64),
		Address6: prefix(i.host6, 24, 64),
	})
	for _, d := range i.dwellers {
		a := lab.Attachment{Namespace: i.netns(d.name), Device: "eth0", Bridge: i.netns("host"), Port: "v-" + d.name}
		for _, text := range d.addresses {
			if ip := netip.MustParseAddr(text); ip.Is4() {
				a.Address, a.Via = prefix(ip, 24, 64), i.host4
			} else if d.six {
				a.Address6, a.Via6 = prefix(ip, 24, 64), i.host6
			}
		}
		n.Attachments = append(n.Attachments, a)
	}
	n.Attachments = append(n.Attachments,
		lab.Attachment{
			Namespace: i.netns("gw"), Device: "eth0", Address: prefix(i.gw4, 24, 64),
			Address6: prefix(i.gw6, 24, 64), Bridge: i.netns("host"), Port: "v-gw",
		},
		lab.Attachment{
			Namespace: i.netns("gw"), Device: "eth1", Address: prefix(i.outer4, 24, 64),
			Address6: prefix(i.outer6, 24, 64), Bridge: sixPrefix + "-link", Port: "v-" + i.name,
		})
}

func openStrait(t *testing.T) *strait {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	envoy, err := envoyproc.Locate(filepath.Join("..", "..", ".cache"))
	need(t, err)
	n := lab.Network{Bridges: []lab.Bridge{{Namespace: sixPrefix + "-link"}}}
	east.attach(&n)
	west.attach(&n)
	n.Attachments = append(n.Attachments, lab.Attachment{
		Namespace: east.netns(outsider), Device: "eth0", Bridge: east.netns("host"), Port: "v-" + outsider,
		Address: netip.MustParsePrefix("10.96.0.66/24"), Address6: netip.MustParsePrefix("fd96::66/64"),
	})
	s := &strait{envoy: envoy, canary: fmt.Sprintf("canary%x", time.Now().UnixNano())}
	s.lab, _, err = lab.Open(lab.Config{Prefix: sixPrefix, Dir: "/run/isthmus/" + sixPrefix, Network: n})
	need(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.tellLogs(t)
		}
		if err := s.lab.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, sixPrefix)
	})
	for _, ns := range []string{east.netns("host"), west.netns("host"), sixPrefix + "-link"} {
		s.wires = append(s.wires, sniff(t, ns, s.canary))
	}
	need(t, lab.Inside(east.netns("without"), func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}))
	for _, i := range []isle{east, west} {
		for _, d := range i.dwellers {
			s.serve(t, i, d)
		}
	}
	s.start(t, east, eastMesh)
	s.start(t, west, westMesh)
	for _, i := range []isle{east, west} {
		within(t, 30*time.Second, i.name+" is up", func() error { return s.ready(t.Context(), i) })
	}
	return s
}

// serve answers every request with the workload's name.
func (s *strait) serve(t *testing.T, i isle, d dweller) {
	t.Helper()
	var at []string
	for _, text := range d.addresses {
		if (d.listens == "" || d.listens == text) && (d.six || netip.MustParseAddr(text).Is4()) {
			at = append(at, text)
		}
	}
	for _, a := range at {
		var l net.Listener
		need(t, lab.Inside(i.netns(d.name),
			func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(a, "8080")); return err }))
		t.Cleanup(func() { l.Close() })
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, d.name, " ", s.canary)
		}))
	}
}

func (s *strait) path(i isle, parts ...string) string {
	return filepath.Join(append([]string{s.lab.Dir(), i.name}, parts...)...)
}

func (s *strait) write(t *testing.T, path string, v any) string {
	t.Helper()
	text, ok := v.(string)
	if !ok {
		b, err := yaml.Marshal(v)
		need(t, err)
		text = string(b)
	}
	need(t, os.MkdirAll(filepath.Dir(path), 0o700))
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	need(t, errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, path)))
	return path
}

// start brings up the control plane, the node and the gateway of a mesh.
func (s *strait) start(t *testing.T, i isle, config string) {
	t.Helper()
	s.write(t, s.path(i, "config", "mesh.yaml"), config)
	s.run(t, i, "control", "host", map[string]any{
		"configDir": s.path(i, "config"), "stateFile": s.path(i, "state.db"), "socket": s.path(i, "control.sock"),
		"agentAddress": i.host(15012), "peeringAddress": i.host(15013), "metricsAddress": i.host(15020),
		"healthAddress": "[::1]:15021",
	})
	within(t, 10*time.Second, "the control plane answers", func() error {
		_, err := straitAdmin[adminapi.Empty, adminapi.StatusResponse](t.Context(), s, i, "Status", &adminapi.Empty{})
		return err
	})
	var workloads []any
	for _, d := range i.dwellers {
		workloads = append(workloads, map[string]any{
			"name": d.name, "namespace": "default", "serviceAccount": d.name,
			"labels": map[string]string{"app": d.name},
			"netns":  lab.NetnsPath(i.netns(d.name)), "addresses": d.addresses,
			"ports":     []any{map[string]any{"name": "http", "number": 8080}},
			"readiness": map[string]any{"tcp": map[string]any{"port": 8080}, "period": "200ms"},
		})
	}
	s.join(t, i, "node", "host", snapshot.RoleNode, "default/*", map[string]any{"workloads": workloads})
	gw := map[string]any{
		"serviceAccount": "edge", "innerAddress": either(i.gw4, i.gw6),
		"outerAddress": either(i.outer4, i.outer6),
	}
	if i.gw4.IsValid() {
		gw["innerAddress6"], gw["outerAddress6"] = i.gw6, i.outer6
	}
	s.join(t, i, "gateway", "gw", snapshot.RoleGateway, "isthmus-system/edge", map[string]any{"gateway": gw})
}

func (s *strait) join(
	t *testing.T, i isle, verb, where string, role snapshot.Role, identity string, settings map[string]any,
) {
	t.Helper()
	token, err := straitAdmin[adminapi.TokenRequest, adminapi.TokenResponse](t.Context(), s, i, "CreateToken",
		&adminapi.TokenRequest{
			Node: i.name + "-" + verb, Role: role, Identities: []string{identity}, TTL: time.Minute,
		})
	need(t, err)
	settings["name"], settings["runDir"], settings["stateDir"] = i.name+"-"+verb, s.path(i, verb, "run"),
		s.path(i, verb, "state")
	settings["control"] = map[string]any{"tokenFile": s.write(t, s.path(i, verb+".token"), token.Token+"\n")}
	settings["envoy"], settings["health"] = map[string]any{"path": s.envoy, "concurrency": 1, "drainTime": "0s"},
		map[string]any{"address": "off"}
	s.run(t, i, verb, where, settings)
}

func (s *strait) run(t *testing.T, i isle, verb, where string, settings map[string]any) {
	t.Helper()
	_, err := s.lab.Start(lab.Command{
		Name: i.name + "-" + verb, Namespace: i.netns(where), Path: filepath.Join(binaries, "isthmus"),
		Args: []string{verb, "--config", s.write(t, s.path(i, verb+".yaml"), settings)},
	})
	need(t, err)
}

func straitAdmin[Req, Resp any](ctx context.Context, s *strait, i isle, method string, req *Req) (*Resp, error) {
	return overSocket[Req, Resp](ctx, s.path(i, "control.sock"), 15*time.Second, method, req)
}

func (s *strait) ready(ctx context.Context, i isle) error {
	st, err := straitAdmin[adminapi.Empty, adminapi.StatusResponse](ctx, s, i, "Status", &adminapi.Empty{})
	if err != nil {
		return err
	}
	return allUp(st, 2)
}

func (s *strait) tellLogs(t *testing.T) {
	for _, i := range []isle{east, west} {
		for _, path := range []string{
			s.lab.LogFile(i.name + "-control"), s.lab.LogFile(i.name + "-node"),
			s.lab.LogFile(i.name + "-gateway"), s.path(i, "node/run/envoy.log"), s.path(i, "gateway/run/envoy.log"),
		} {
			tellEnd(t, path)
		}
	}
}

// lookup asks the DNS inside a namespace, at its address of one IP version.
func (s *strait) lookup(ns, server, name string, qtype uint16) (addrs []netip.Addr, err error) {
	err = lab.Inside(ns, func() error {
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), qtype)
		r, _, err := (&dns.Client{Timeout: time.Second}).Exchange(q, net.JoinHostPort(server, "53"))
		if err != nil {
			return err
		}
		if r.Rcode != dns.RcodeSuccess {
			return errors.New(dns.RcodeToString[r.Rcode])
		}
		for _, rr := range r.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addrs = append(addrs, netip.AddrFrom4([4]byte(rr.A.To4())))
			case *dns.AAAA:
				addrs = append(addrs, netip.AddrFrom16([16]byte(rr.AAAA)))
			}
		}
		return nil
	})
	return addrs, err
}

// get asks from inside a namespace, at an address, for a host's page.
func (s *strait) get(ns, address, host string) reply {
	var out reply
	err := lab.Inside(ns, func() error {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		req, err := http.NewRequest(http.MethodGet, "http://"+host+"/", nil)
		if err != nil {
			return err
		}
		if ns != east.netns(outsider) && ns != east.netns("host") { // which are not in the mesh
			req.Header.Set("x-canary", s.canary)
		}
		client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn,
			error,
		) {
			return c, nil
		}}}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		out = reply{status: resp.StatusCode, body: string(body)}
		return err
	})
	out.err = err
	return out
}
