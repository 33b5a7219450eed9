//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestIPv6 runs two meshes: east has IPv4 and IPv6 and workloads with the one, the other, both, or IPv6 switched off;
// west knows only IPv6, its control plane included, and the gateways meet over IPv6 alone.
func TestIPv6(t *testing.T) {
	t.Parallel()
	s := openStrait(t)
	t.Run("names", s.names)
	t.Run("calls handed over", func(t *testing.T) { s.calls(t, true) })
	s.write(t, s.path(east, "config", "mesh.yaml"),
		strings.Replace(eastMesh, "trustDomain:", "sameNode: Network, trustDomain:", 1))
	waittest.Pace(time.Second) // what is handed over still is answered as what is not
	t.Run("calls", func(t *testing.T) { s.calls(t, false) })
	t.Run("refusals", s.refusals)
	t.Run("source address", s.sourceAddress)
	t.Run("peering", s.peering)
	t.Run("calls across", s.callsAcross)
	t.Run("no plaintext on the wires", s.noPlaintext)
}

const cluster = ".default.svc.cluster.local"

var (
	virtual4 = netip.MustParsePrefix("240.240.0.0/16")
	virtual6 = netip.MustParsePrefix("100::/96")
)

// speaks says which IP versions a workload of east really has.
func speaks(name string) (four, six bool) {
	for _, d := range east.dwellers {
		if d.name == name {
			return strings.Contains(strings.Join(d.addresses, " "), "."), d.six
		}
	}
	panic("no such workload: " + name)
}

// names: a workload is told addresses of the IP versions that it has, for names that it may call and for those that it
// may not.
func (s *strait) names(t *testing.T) {
	for _, d := range east.dwellers {
		four, six := speaks(d.name)
		for _, host := range []string{"both", "nobody"} {
			for _, q := range []struct {
				has   bool
				qtype uint16
				in    netip.Prefix
			}{{four, dns.TypeA, virtual4}, {six, dns.TypeAAAA, virtual6}} {
				got, err := s.lookup(east.netns(d.name), map[bool]string{true: "127.0.0.1", false: "::1"}[four],
					host+cluster, q.qtype)
				if err != nil || (len(got) == 1) != q.has || q.has && !q.in.Contains(got[0]) {
					t.Errorf("%s asks %s for %s: %v, %v", d.name, dns.TypeToString[q.qtype], host, got, err)
				}
			}
		}
	}
	stable, err := s.lookup(east.netns("new"), "::1", "both"+cluster, dns.TypeAAAA)
	need(t, err)
	again, err := s.lookup(east.netns("both"), "127.0.0.1", "both"+cluster, dns.TypeAAAA)
	if err != nil || !slices.Equal(stable, again) {
		t.Errorf("one caller is told %v, another %v, %v", stable, again, err)
	}
}

// calls: whoever shares an IP version with a server reaches it, at every virtual address that DNS gives; whoever does
// not is told so at once. Handed over inside the node's Envoy, a call needs none.
func (s *strait) calls(t *testing.T, inProcess bool) {
	for _, from := range east.dwellers {
		four, six := speaks(from.name)
		for _, to := range east.dwellers {
			toFour, toSix := speaks(to.name)
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				if from.name == to.name || qtype == dns.TypeA && !four || qtype == dns.TypeAAAA && !six {
					continue
				}
				what := fmt.Sprintf("%s to %s by %s", from.name, to.name, dns.TypeToString[qtype])
				if inProcess || four && toFour || six && toSix {
					within(t, 5*time.Second, what, func() error { return s.answered(from.name, to.name, qtype) })
					continue
				}
				began := time.Now()
				if err := s.answered(from.name, to.name, qtype); err == nil || time.Since(began) > 2*time.Second {
					t.Errorf("%s: %v after %v", what, err, time.Since(began))
				}
			}
		}
	}
}

func (s *strait) answered(from, to string, qtype uint16) error {
	four, _ := speaks(from)
	addrs, err := s.lookup(east.netns(from), map[bool]string{true: "127.0.0.1", false: "::1"}[four], to+cluster, qtype)
	if err != nil || len(addrs) != 1 {
		return fmt.Errorf("%v, %w", addrs, err)
	}
	r := s.get(east.netns(from), net.JoinHostPort(addrs[0].String(), "80"), to)
	if r.err != nil || r.status != 200 || r.body != to+" "+s.canary {
		return fmt.Errorf("%v", r)
	}
	return nil
}

// refusals come at once and give their reason, over IPv6 as over IPv4.
func (s *strait) refusals(t *testing.T) {
	var l net.Listener
	need(t, lab.Inside(east.netns(outsider),
		func() (err error) { l, err = net.Listen("tcp", "[fd96::66]:80"); return err }))
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "plaintext") }))
	at := func(from, name string, qtype uint16) string {
		four, _ := speaks(from)
		addrs, err := s.lookup(east.netns(from), map[bool]string{true: "127.0.0.1", false: "::1"}[four], name+cluster,
			qtype)
		if err != nil || len(addrs) != 1 {
			t.Fatalf("%s asks for %s: %v, %v", from, name, addrs, err)
		}
		return addrs[0].String()
	}
	for _, c := range []struct{ what, from, address, reason string }{
		{
			"an unlisted address", "new", "[fd96::66]:80",
			"default/new (spiffe://east.example/ns/default/sa/new) may not call host at [fd96::66]:80",
		},
		{"an unlisted address", "both", "[fd96::66]:80", "may not call host at [fd96::66]:80"},
		{"another port of a service", "new", net.JoinHostPort(at("new", "both", dns.TypeAAAA), "81"), "may not call"},
		{
			"a name that is no service", "new", net.JoinHostPort(at("new", "nobody", dns.TypeAAAA), "80"),
			"may not call host at [100::f0f0:1]:80",
		},
		{
			"a name that is no service", "both", net.JoinHostPort(at("both", "nobody", dns.TypeAAAA), "80"),
			"may not call host at [100::f0f0:1]:80",
		},
		{
			"a name that is no service", "both", net.JoinHostPort(at("both", "nobody", dns.TypeA), "80"),
			"may not call host at 240.240.0.1:80",
		},
		{"plaintext from outside", outsider, "[fd96::12]:8080", "default/new accepts only mutual TLS"},
		{
			"plaintext from outside to a port of no service", outsider, "[fd96::13]:9999",
			"default/both accepts only mutual TLS",
		},
	} {
		began := time.Now()
		r := s.get(east.netns(c.from), c.address, "host")
		if took := time.Since(began); r.err != nil || r.status != 403 || !strings.Contains(r.body, c.reason) ||
			took > time.Second {
			t.Errorf("%s, from %s: %v after %v, want 403 with %q", c.what, c.from, r, took, c.reason)
		}
	}
	if r := s.get(east.netns("host"), "[fd96::66]:80", "host"); r.status != 200 {
		t.Errorf("who is not captured reaches the outsider: %v", r)
	}
}

// sourceAddress: a policy tells callers apart by their IPv6 addresses.
func (s *strait) sourceAddress(t *testing.T) {
	file := s.path(east, "config", "deny.yaml")
	s.write(t, file, policy("default", "not-new", `
action: DENY
selector: {matchLabels: {app: both}}
rules: [{from: [{source: {ipBlocks: ["fd96::12/127"]}}]}]`))
	within(t, 5*time.Second, "new is denied by its address", func() error {
		if err := s.answered("new", "both", dns.TypeAAAA); err == nil || !strings.Contains(err.Error(), "403") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	need(t, s.answered("old", "both", dns.TypeA))
	need(t, os.Remove(file))
	within(t, 5*time.Second, "and allowed again", func() error { return s.answered("new", "both", dns.TypeAAAA) })
}

// noPlaintext: of all that was said in the meshes, nothing was ever on a wire in plaintext.
func (s *strait) noPlaintext(t *testing.T) {
	for _, w := range s.wires {
		need(t, w.none())
	}
	w := s.wires[0]
	s.get(east.netns(outsider), "[fd96::12]:8080", s.canary)
	within(t, 2*time.Second, "plaintext is seen", func() error {
		if w.sighted.Load() == 0 {
			return fmt.Errorf("%d frames and not this", w.frames.Load())
		}
		return nil
	})
	for _, w := range s.wires {
		t.Logf("%d frames looked at", w.frames.Load())
	}
}

// peering is made by a token that holds the gateway's addresses of both versions; only the IPv6 one leads there.
func (s *strait) peering(t *testing.T) {
	invite, err := straitAdmin[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](t.Context(), s, east,
		"PeerInvite",
		&adminapi.PeerInviteRequest{Peer: "west", TTL: 5 * time.Minute})
	need(t, err)
	if want := []string{"198.51.100.11:15443", "[2001:db8:5::11]:15443"}; !slices.Equal(invite.Addresses, want) {
		t.Errorf("the invitation names %v, want %v", invite.Addresses, want)
	}
	began := time.Now()
	_, err = straitAdmin[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](t.Context(), s, west, "PeerAccept",
		&adminapi.PeerAcceptRequest{Token: invite.Token, Name: "east"})
	need(t, err)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("accepting took %v: the address that leads nowhere was tried first", took)
	}
}

// callsAcross: west imports a service of every kind of server, which it reaches under a local name, over IPv6.
func (s *strait) callsAcross(t *testing.T) {
	for _, name := range []string{"old", "new", "both"} {
		s.write(t, s.path(east, "config", name+".yaml"), fmt.Sprintf(`
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: %[1]s, namespace: default}
spec: {service: %[1]s, port: 80, to: [{peer: west, rules: [{callers: ["spiffe://west.example/ns/default/sa/shop"]}]}]}
`, name))
		s.write(t, s.path(west, "config", name+".yaml"), fmt.Sprintf(`
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: %[1]s, namespace: default}
spec: {port: 80, protocol: HTTP, from: [{peer: east}], callers: [shop]}
`, name))
	}
	for _, name := range []string{"old", "new", "both"} {
		within(t, 20*time.Second, name+" of east answers shop of west", func() error {
			addrs, err := s.lookup(west.netns("shop"), "::1", name+cluster, dns.TypeAAAA)
			if err != nil || len(addrs) != 1 || !virtual6.Contains(addrs[0]) {
				return fmt.Errorf("%v, %w", addrs, err)
			}
			if r := s.get(west.netns("shop"), net.JoinHostPort(addrs[0].String(), "80"), name); r.err != nil ||
				r.status != 200 || r.body != name+" "+s.canary {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
	for range 50 { // no call is lost to the address that leads nowhere
		addrs, err := s.lookup(west.netns("shop"), "::1", "both"+cluster, dns.TypeAAAA)
		need(t, err)
		if r := s.get(west.netns("shop"), net.JoinHostPort(addrs[0].String(), "80"), "both"); r.err != nil ||
			r.status != 200 {
			t.Fatalf("%v", r)
		}
	}
}

var eastMesh = meshOf("east", "old", "new", "both", "turned", "without")

var westMesh = meshOf("west", "shop")

// meshOf has a Service for each workload, and lets everybody in the mesh call it.
func meshOf(name string, services ...string) string {
	out := `
apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: ` + name + `}
spec: {trustDomain: ` + name + `.example}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Namespace
metadata: {name: isthmus-system}
` + policy("default", "all", "rules: [{}]")
	for _, s := range services {
		out += `---
apiVersion: v1
kind: Service
metadata: {name: ` + s + `, namespace: default}
spec: {selector: {app: ` + s + `}, ports: [{name: http, port: 80, targetPort: 8080}]}
`
	}
	return out
}
