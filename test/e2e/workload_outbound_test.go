//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
)

// outbound: a workload reaches what it may call and nothing else, by no protocol.
func (s *shop) outbound(t *testing.T) {
	s.apply(t, "web", allow(`[{from: [{source: {principals: ["`+id("default", "alice")+`"]}}]}]`))
	heard := s.listenOutside(t)
	t.Run("unlisted addresses", s.unlisted)
	t.Run("listed meanwhile", s.listedMeanwhile)
	t.Run("UDP", s.udpRefused)
	t.Run("DNS", s.dnsCaptured)
	t.Run("IPv6", s.ipv6Refused)
	t.Run("need to know", s.needToKnow)
	if n := heard(); n > 0 {
		t.Errorf("the outsider was reached %d times", n)
	}
	// The listener would have heard: from a namespace without capture it does.
	c, err := s.dial("host", "10.93.0.66:80")
	need(t, err)
	c.Close()
	within(t, time.Second, "the outsider hears", func() error {
		if heard() == 0 {
			return fmt.Errorf("nothing")
		}
		return nil
	})
}

// listedMeanwhile: who is refused is hung up on, so that a client which keeps its connections, and asks all the time,
// is not refused for longer than it has to be.
func (s *shop) listedMeanwhile(t *testing.T) {
	only := func(callers ...string) string {
		return allow(`[{from: [{source: {principals: ["` + strings.Join(callers, `", "`) + `"]}}]}]`)
	}
	alice, bob := id("default", "alice"), id("default", "bob")
	ask := map[string]func() (int, error){
		"HTTP/1.1": s.keeping(t, "bob", "web", false),
		"HTTP/2":   s.keeping(t, "bob", "web", true),
	}
	answers := func(want int) func() error {
		return func() error {
			for version, ask := range ask {
				if got, err := ask(); err != nil || got != want {
					return fmt.Errorf("%s: %d %v, want %d", version, got, err, want)
				}
			}
			return nil
		}
	}
	within(t, 30*time.Second, "bob is refused", answers(403))
	s.apply(t, "web", only(alice, bob))
	within(t, 30*time.Second, "bob is let in", answers(200))
	s.apply(t, "web", only(alice))
	within(t, 30*time.Second, "bob is refused again", answers(403))
}

// keeping is a client that looks a service up whenever it connects, and connects when it has to.
func (s *shop) keeping(t *testing.T, from, service string, second bool) func() (status int, err error) {
	tr := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			address, err := s.to(from, service)
			if err != nil {
				return nil, err
			}
			return s.dial(from, address)
		},
	}
	tr.Protocols.SetHTTP1(!second)
	tr.Protocols.SetUnencryptedHTTP2(second)
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	return func() (int, error) {
		resp, err := client.Get("http://" + service + ".default/")
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
}

// notHTTP is what those say first who do not speak HTTP.
func notHTTP(t *testing.T) map[string]string {
	t.Helper()
	here, there := net.Pipe()
	go tls.Client(here, &tls.Config{ServerName: "web"}).Handshake()
	hello := make([]byte, 4096)
	n, err := there.Read(hello)
	need(t, err)
	here.Close()
	return map[string]string{
		"bytes": "\x00\x01not HTTP\n", "a line": "HELO alice\r\n", "TLS": string(hello[:n]),
		"nothing": "",
	}
}

// listenOutside counts what reaches the outsider, on TCP and UDP, port 53 among them.
func (s *shop) listenOutside(t *testing.T) func() int {
	heard := make(chan struct{}, 1000)
	need(t, lab.Inside(s.netns(outsider), func() error {
		for _, port := range []string{":80", ":53", ":9999"} {
			l, err := net.Listen("tcp4", port)
			if err != nil {
				return err
			}
			u, err := net.ListenPacket("udp4", port)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close(); u.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					heard <- struct{}{}
					c.Close()
				}
			}()
			go func() {
				for {
					if _, _, err := u.ReadFrom(make([]byte, 100)); err != nil {
						return
					}
					heard <- struct{}{}
				}
			}()
		}
		return nil
	}))
	return func() int { return len(heard) }
}

func (s *shop) unlisted(t *testing.T) {
	for _, to := range []string{
		"10.93.0.66:80", "10.93.0.66:9999", "203.0.113.7:80", "10.93.0.21:8080",
		"10.93.0.1:15012", "10.93.0.12:80",
	} {
		r := s.get("alice", to, "/")
		if r.status != 403 || !strings.Contains(r.body,
			"default/alice (spiffe://shop.example/ns/default/sa/alice) may not call") || !strings.Contains(r.body, to) {
			t.Errorf("HTTP to %s: %s", to, r)
		}
		for what, say := range notHTTP(t) { // the last waits for the server to speak
			c, err := s.dial("alice", to)
			need(t, err)
			io.WriteString(c, say)
			if err := closed(c, 5*time.Second); err != nil {
				t.Errorf("%s to %s: %v", what, to, err)
			}
			c.Close()
		}
	}
	within(t, 10*time.Second, "raw refusals are on record", func() error {
		text, err := s.accessLogs("front")
		if err == nil && !strings.Contains(text,
			`"verdict":"denied","class":"unlisted","caller":"default/alice","destination":"203.0.113.7:80","reason":"no service there lists the caller","remote":"10.93.0.11"`) {
			err = fmt.Errorf("they are not in %s", text)
		}
		return err
	})
	// A service that exists, for a caller that it does not list, and one that does not exist, look alike.
	real, err := s.resolve("lonely", "web.default.svc.cluster.local")
	need(t, err)
	none, err := s.resolve("lonely", "nowhere.default.svc.cluster.local")
	need(t, err)
	if real != none {
		t.Errorf("web is %s and nowhere is %s to who may call neither", real, none)
	}
	if a, b := s.get("lonely", "web", "/"), s.get("lonely", "nowhere", "/"); a.status != 403 ||
		a.body != strings.ReplaceAll(b.body, "nowhere", "web") {
		t.Errorf("web: %s; nowhere: %s", a, b)
	}
}

func (s *shop) udpRefused(t *testing.T) {
	for _, to := range []string{"10.93.0.66:9999", "10.93.0.66:443", "10.93.0.21:8080", "203.0.113.7:123"} {
		need(t, lab.Inside(s.netns("alice"), func() error {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Write([]byte(s.canary))
			if err == nil {
				_, err = c.Read(make([]byte, 10))
			}
			if err == nil || isTimeout(err) {
				t.Errorf("UDP to %s: %v, want a refusal at once", to, err)
			}
			return nil
		}))
	}
}

// dnsCaptured: whichever server is asked, ours answers.
func (s *shop) dnsCaptured(t *testing.T) {
	want, err := s.resolve("alice", "web.default.svc.cluster.local")
	need(t, err)
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []string{"127.0.0.1:53", "10.93.0.66:53", "203.0.113.7:53"} {
			r, err := s.question("alice", network, server, "web.default.svc.cluster.local", dns.TypeA)
			if err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.A).A.String() != want.String() {
				t.Errorf("%s to %s: %v, %v", network, server, r, err)
			}
			// What is not listed does not exist, and nothing of the question leaves.
			r, err = s.question("alice", network, server, s.canary+".exfiltration.example", dns.TypeTXT)
			if err != nil || r.Rcode != dns.RcodeNameError {
				t.Errorf("%s to %s, another name: %v, %v", network, server, r, err)
			}
		}
	}
}

// ipv6Refused: in a mesh that speaks IPv4 nothing goes out and nothing comes in by IPv6.
func (s *shop) ipv6Refused(t *testing.T) {
	s.addIPv6(t, "alice", "eth0", "fd93::11")
	s.addIPv6(t, "web", "eth0", "fd93::21")
	s.addIPv6(t, outsider, "eth0", "fd93::66")
	s.addIPv6(t, "host", "br0", "fd93::1")
	var l net.Listener
	need(t, lab.Inside(s.netns(outsider), func() (err error) { l, err = net.Listen("tcp6", "[::]:8086"); return err }))
	defer l.Close()
	heard := make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
			heard <- struct{}{}
		}
	}()
	if c, err := s.dial("alice", "[fd93::66]:8086"); err == nil {
		if text, _ := hear(c, time.Second); text != "" && !strings.HasPrefix(text, "HTTP/1.1 4") {
			t.Errorf("IPv6 out: heard %q", text)
		}
		c.Close()
	}
	if len(heard) > 0 {
		t.Error("IPv6 out: the outsider was reached")
	}
	before := s.conns()
	if c, err := s.dial(outsider, "[fd93::21]:7000"); err == nil {
		if text, _ := hear(c, time.Second); strings.Contains(text, "banner") {
			t.Errorf("IPv6 in: heard %q", text)
		}
		c.Close()
	}
	if s.conns() != before {
		t.Error("IPv6 in: the server was connected to")
	}
	c, err := s.dial("host", "[fd93::66]:8086") // the way is open, where nothing captures
	need(t, err)
	c.Close()
}

// addIPv6 gives a namespace an address of the other kind.
func (s *shop) addIPv6(t *testing.T, name, device, address string) {
	t.Helper()
	need(t, lab.Inside(s.netns(name), func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/disable_ipv6", []byte("0"), 0); err != nil {
			return err
		}
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address + "/64")
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD // usable at once
		return netlink.AddrAdd(link, a)
	}))
}

// needToKnow: what the callers' node is told names what its workloads may call, and nothing else; a node is told
// nothing of another's inbound side.
func (s *shop) needToKnow(t *testing.T) {
	text := func(node string) string {
		r, err := admin[adminapi.ProxyConfigRequest, adminapi.ProxyConfigResponse](t.Context(), s, "ProxyConfig",
			&adminapi.ProxyConfigRequest{Name: node})
		need(t, err)
		var b strings.Builder
		out := json.NewEncoder(&b)
		out.SetEscapeHTML(false)
		need(t, out.Encode(r))
		return b.String()
	}
	front, back := text("front"), text("back")
	for what, in := range map[string]bool{
		"web.default.svc.cluster.local": strings.Contains(front, "default/alice>web.default"), // alice may
		"steady for alice":              strings.Contains(front, "default/alice>steady.default"),
	} {
		if !in {
			t.Errorf("the callers' node is not told of %s", what)
		}
	}
	for _, name := range []string{
		"lonely/lonely>web", "lonely/lonely>steady", "lonely/lonely>pool", "default/bob>web",
		"other/carol>web", "other/carol>steady", "pair", "inbound/default/web",
	} {
		if strings.Contains(front, name) {
			t.Errorf("the callers' node is told of %q", name)
		}
	}
	for _, name := range []string{"sa/bob", "sa/carol", "sa/lonely", "10.93.0.11", "10.93.0.14"} {
		if strings.Contains(back, name) {
			t.Errorf("the servers' node is told of %q", name)
		}
	}
	if !strings.Contains(front, "outbound/lonely/lonely") {
		t.Error("the lonely workload has no outbound listener, so that this says nothing of it")
	}
}
