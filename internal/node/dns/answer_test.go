package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
)

func table() *agentapi.DNSTable {
	return &agentapi.DNSTable{
		Hosts: map[string][]netip.Addr{
			"pay.default.svc.cluster.local": {netip.MustParseAddr("240.240.0.1")},
			"dual.example":                  {netip.MustParseAddr("240.240.0.2"), netip.MustParseAddr("fd00::2")},
		},
		Refusal:         netip.MustParseAddr("240.240.255.1"),
		RefusalSuffixes: []string{"default.svc.cluster.local", "shop.svc.cluster.local"},
		MeshSuffix:      "svc.cluster.local",
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode string // "upstream": not the mesh's
		addrs string
	}{
		{"pay.default.svc.cluster.local.", dns.TypeA, "NOERROR", "240.240.0.1"},
		{"PAY.Default.svc.cluster.LOCAL.", dns.TypeA, "NOERROR", "240.240.0.1"},
		{"pay.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR", ""},
		{"pay.default.svc.cluster.local.", dns.TypeTXT, "NOERROR", ""},
		{"dual.example.", dns.TypeA, "NOERROR", "240.240.0.2"},
		{"dual.example.", dns.TypeAAAA, "NOERROR", "fd00::2"},
		{"secret.default.svc.cluster.local.", dns.TypeA, "NOERROR", "240.240.255.1"},
		{"secret.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR", ""},
		{"a.shop.svc.cluster.local.", dns.TypeA, "NOERROR", "240.240.255.1"},
		{"a.b.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"a.other.svc.cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"default.svc.cluster.local.", dns.TypeA, "NOERROR", ""},
		{"svc.cluster.local.", dns.TypeA, "NOERROR", ""},
		{"www.example.", dns.TypeA, "upstream", ""},
		{"notsvc.cluster.local.", dns.TypeA, "upstream", ""},
		{"xsvc.cluster.local.", dns.TypeA, "upstream", ""},
		{".", dns.TypeNS, "upstream", ""},
		{"pay.default.svc.cluster.local.", dns.TypeAXFR, "REFUSED", ""},
	} {
		r := answer(table(), new(dns.Msg).SetQuestion(c.name, c.qtype))
		if got := rcodeOf(r); got != c.rcode {
			t.Errorf("%s %s: got %s, want %s", c.name, dns.TypeToString[c.qtype], got, c.rcode)
			continue
		}
		if got := addrsOf(r); got != c.addrs {
			t.Errorf("%s %s: got addresses %q, want %q", c.name, dns.TypeToString[c.qtype], got, c.addrs)
		}
	}
}

// Who has IPv6 is refused there as well, and who has nothing else only there: a caller of both versions is refused at once by
// whichever it tries.
func TestAnswerRefusesInEachVersion(t *testing.T) {
	four, six := netip.MustParseAddr("240.240.0.1"), netip.MustParseAddr("100::f0f0:1")
	for _, c := range []struct {
		refusal, refusal6 netip.Addr
		a, aaaa           string
	}{
		{four, netip.Addr{}, "240.240.0.1", ""},
		{four, six, "240.240.0.1", "100::f0f0:1"},
		{netip.Addr{}, six, "", "100::f0f0:1"},
	} {
		own := table()
		own.Refusal, own.Refusal6 = c.refusal, c.refusal6
		for qtype, want := range map[uint16]string{dns.TypeA: c.a, dns.TypeAAAA: c.aaaa} {
			r := answer(own, new(dns.Msg).SetQuestion("secret.default.svc.cluster.local.", qtype))
			if rcodeOf(r) != "NOERROR" || addrsOf(r) != want {
				t.Errorf("%s: got %s %q, want %q", dns.TypeToString[qtype], rcodeOf(r), addrsOf(r), want)
			}
		}
	}
}

func TestAnswerBeforeTheControlPlaneSpoke(t *testing.T) {
	r := answer(nil, new(dns.Msg).SetQuestion("www.example.", dns.TypeA))
	if got := rcodeOf(r); got != "SERVFAIL" {
		t.Errorf("got %s: no name may leave before it is known which ones are the mesh's", got)
	}
}

func TestAnswerOddQuestions(t *testing.T) {
	two := new(dns.Msg).SetQuestion("a.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	chaos := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := new(dns.Msg).SetUpdate("svc.cluster.local.")
	none := new(dns.Msg)
	for _, c := range []struct {
		q    *dns.Msg
		want string
	}{{two, "FORMERR"}, {chaos, "REFUSED"}, {update, "NOTIMP"}, {none, "FORMERR"}} {
		if got := rcodeOf(answer(table(), c.q)); got != c.want {
			t.Errorf("got %s, want %s for %v", got, c.want, c.q)
		}
	}
}

func rcodeOf(r *dns.Msg) string {
	if r == nil {
		return "upstream"
	}
	return dns.RcodeToString[r.Rcode]
}

func addrsOf(r *dns.Msg) string {
	if r == nil {
		return ""
	}
	var out []string
	for _, rr := range r.Answer {
		if rr.Header().Ttl != 5 {
			return "wrong TTL"
		}
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	return strings.Join(out, " ")
}

func TestResolveUpstream(t *testing.T) {
	asked := make(chan string, 10)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- q.Question[0].Name
		r := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.7")
		r.Answer = append(r.Answer, rr)
		w.WriteMsg(r)
	})}
	go srv.ActivateAndServe()
	defer srv.Shutdown()

	dead := netip.MustParseAddrPort("127.0.0.1:9") // nothing there: refused at once
	live := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	s := New(Config{Log: slog.New(slog.DiscardHandler), Upstreams: []netip.AddrPort{dead, live}})
	s.SetTables(map[string]agentapi.DNSTable{"default/web": *table()})
	c := client{workload: "default/web", slots: make(chan struct{}, 1)}

	q := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
	r := s.resolve(c, q, false)
	if len(r.Answer) != 1 || r.Id != q.Id || <-asked != "www.example." {
		t.Fatalf("got %v", r)
	}
	if r := s.resolve(c, new(dns.Msg).SetQuestion("x.nowhere.svc.cluster.local.", dns.TypeA), false); rcodeOf(r) != "NXDOMAIN" || len(asked) != 0 {
		t.Errorf("a mesh name left the mesh: %v", r)
	}
	c.slots <- struct{}{} // all in use
	if r := s.resolve(c, q, false); rcodeOf(r) != "SERVFAIL" {
		t.Errorf("got %s beyond the bound", rcodeOf(r))
	}
	unknown := client{workload: "default/unknown", slots: make(chan struct{}, 1)}
	if r := s.resolve(unknown, q, false); rcodeOf(r) != "SERVFAIL" {
		t.Errorf("got %s for a workload that the control plane does not know", rcodeOf(r))
	}
	if n := s.Counts(); n.Forwarded != 1 || n.Failed != 1 || n.Mesh != 2 {
		t.Errorf("counts %+v", n)
	}
	s.cfg.Upstreams = nil
	if r := s.resolve(client{workload: "default/web", slots: make(chan struct{}, 1)}, q, false); rcodeOf(r) != "REFUSED" {
		t.Errorf("got %s without upstreams", rcodeOf(r))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"pay.default.svc.cluster.local.", "x.default.svc.cluster.local.", "www.example."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		r := answer(table(), q)
		if r == nil {
			if strings.HasSuffix(strings.ToLower(q.Question[0].Name), ".svc.cluster.local.") {
				t.Errorf("a mesh name would be asked upstream: %v", q)
			}
			return
		}
		r.Truncate(udpSize(q))
		if _, err := r.Pack(); err != nil {
			t.Errorf("the answer does not pack: %v", err)
		}
		if r.Id != q.Id {
			t.Errorf("answer %d to question %d", r.Id, q.Id)
		}
	})
}
