package dns

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/waittest"
)

// upstreamServer answers over UDP and TCP, and remembers what it was asked.
type upstreamServer struct {
	at netip.AddrPort

	mu    sync.Mutex // guards asked
	asked []*dns.Msg
}

func newUpstream(t *testing.T, answer func(q *dns.Msg) *dns.Msg) *upstreamServer {
	t.Helper()
	u := &upstreamServer{}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.mu.Lock()
		u.asked = append(u.asked, q)
		u.mu.Unlock()
		w.WriteMsg(answer(q))
	})
	pc, l := bothSockets(t)
	u.at = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		go srv.ActivateAndServe()
		t.Cleanup(func() { srv.Shutdown() })
	}
	return u
}

// bothSockets are one of UDP and one of TCP at the same port. A port that is free for one may be taken for the other.
func bothSockets(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var failed error
	for range 50 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
		failed = err
	}
	t.Fatal(failed)
	return nil, nil
}

func (u *upstreamServer) last() *dns.Msg {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[len(u.asked)-1]
}

func (u *upstreamServer) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, q := range u.asked {
		out = append(out, q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype])
	}
	return out
}

func withRecords(q *dns.Msg, records ...string) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		r.Answer = append(r.Answer, rr)
	}
	return r
}

func newTestClient(t testing.TB, workload string) client {
	t.Helper()
	p, err := newPending(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.file.Close() })
	return newClient(workload, p)
}

// impatient is a client whose limits give nothing back with time, so that it does not matter how fast a test runs.
func impatient(t *testing.T, workload string) client {
	c := newTestClient(t, workload)
	c.forwards.SetLimit(0)
	c.refusals.SetLimit(0)
	return c
}

func newTestServer(table *agentapi.DNSTable, upstreams ...netip.AddrPort) (s *Server, told *[]ExternalQuestion) {
	told = new([]ExternalQuestion)
	s = New(Config{
		Log: slog.New(slog.DiscardHandler), Upstreams: upstreams,
		Record: func(o ExternalQuestion) { *told = append(*told, o) },
	})
	s.SetTables(map[string]agentapi.DNSTable{"default/web": *table})
	return s, told
}

// Where workloads may call listed addresses only, no question of any form leaves the node.
func TestNothingIsForwardedWhereOnlyListedAddressesMayBeCalled(t *testing.T) {
	u := newUpstream(t, func(q *dns.Msg) *dns.Msg { return withRecords(q, q.Question[0].Name+" 60 IN A 192.0.2.7") })
	s, told := newTestServer(table(), u.at)
	c := impatient(t, "default/web")
	for qtype := range dns.TypeToString {
		for _, name := range []string{
			"c2VjcmV0.tunnel.example.", "pay.default.svc.cluster.local.", "dual.example.",
			"pay.",
		} {
			for _, tcp := range []bool{false, true} {
				if r := s.resolve(c, new(dns.Msg).SetQuestion(name, qtype), tcp); r == nil {
					t.Fatalf("no answer to %s %s", name, dns.TypeToString[qtype])
				}
			}
		}
	}
	if got := u.names(); len(got) > 0 {
		t.Errorf("the upstream was asked %v", got)
	}
	if len(*told) != refusalBurst || (*told)[0].Result != "refused" {
		t.Errorf("%d records of one workload: %v", len(*told), *told)
	}
}

// Of a workload's message only the name and the type go upstream, and of the answer only what answers it comes back.
func TestForwardedQuestionsAndAnswersAreBare(t *testing.T) {
	u := newUpstream(t, func(q *dns.Msg) *dns.Msg {
		r := withRecords(q, "www.example. 60 IN CNAME x.example.", "x.example. 60 IN A 192.0.2.7",
			`www.example. 60 IN TXT "else"`)
		r.Extra = append(r.Extra, &dns.A{
			Hdr: dns.RR_Header{Name: "pay.default.svc.cluster.local.", Rrtype: dns.TypeA, Class: dns.ClassINET},
			A:   net.IPv4(192, 0, 2, 66),
		})
		return r
	})
	dead := netip.MustParseAddrPort("127.0.0.1:9") // nothing there: refused at once
	s, told := newTestServer(open(), dead, u.at)
	for _, tcp := range []bool{false, true} {
		q := new(dns.Msg).SetQuestion("wWw.eXample.", dns.TypeA).SetEdns0(4096, true)
		q.IsEdns0().Option = append(q.IsEdns0().Option,
			&dns.EDNS0_LOCAL{Code: dns.EDNS0LOCALSTART, Data: []byte("secret")})
		q.CheckingDisabled, q.AuthenticatedData, q.Zero = true, true, true
		q.Answer = append(q.Answer,
			&dns.TXT{
				Hdr: dns.RR_Header{Name: "secret.", Rrtype: dns.TypeTXT, Class: dns.ClassINET},
				Txt: []string{"secret"},
			})
		r := s.resolve(newTestClient(t, "default/web"), q, tcp)
		if r.Id != q.Id || r.Question[0].Name != "wWw.eXample." || len(r.Answer) != 2 || addrsIn(r) != "192.0.2.7" ||
			len(r.Extra) != 1 {
			t.Errorf("answered %v", r)
		}
		got := u.last()
		if got.Question[0].Name != "www.example." || len(got.Answer)+len(got.Ns) > 0 || len(got.Extra) != 1 ||
			len(got.IsEdns0().Option) > 0 ||
			got.IsEdns0().Do() || got.CheckingDisabled || got.AuthenticatedData || got.Zero || got.Id == q.Id {
			t.Errorf("asked %v", got)
		}
	}
	if want := (ExternalQuestion{"default/web", "www.example.", "A", "forwarded"}); len(*told) != 2 ||
		(*told)[0] != want {
		t.Errorf("recorded %v", *told)
	}
}

// An upstream that says nothing does not keep the next one from being asked, and one that fails not for a moment.
func TestASilentUpstreamIsNotWaitedFor(t *testing.T) {
	silent, failing, good := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53"),
		netip.MustParseAddrPort("192.0.2.3:53")
	for _, c := range []struct {
		upstreams []netip.AddrPort
		answered  bool
		took      time.Duration
	}{
		{[]netip.AddrPort{good, silent}, true, 0},
		{[]netip.AddrPort{silent, silent, silent, good}, true, 600 * time.Millisecond},
		{[]netip.AddrPort{failing, failing, good}, true, 0},
		{[]netip.AddrPort{silent, silent, silent}, false, 2400 * time.Millisecond},
		{nil, false, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			r := askAll(c.upstreams, func(server netip.AddrPort) (*dns.Msg, error) {
				switch server {
				case good:
					return new(dns.Msg), nil
				case silent:
					waittest.Pace(2 * time.Second)
				}
				return nil, errors.New("no answer")
			})
			if took := time.Since(began); (r != nil) != c.answered || took != c.took {
				t.Errorf("%v: answered %v after %s, want %v after %s", c.upstreams, r != nil, took, c.answered, c.took)
			}
			waittest.Advance(3 * time.Second) // until nobody asks any more
		})
	}
}

func addrsIn(r *dns.Msg) string {
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String()
		}
	}
	return ""
}

func TestForwardingIsBounded(t *testing.T) {
	long := strings.Repeat("x", 250)
	u := newUpstream(t, func(q *dns.Msg) *dns.Msg {
		if q.Question[0].Name != "long.example." {
			return withRecords(q)
		}
		var records []string
		for i := range 20 {
			records = append(records, fmt.Sprintf(`long.example. 60 IN TXT "%d%s"`, i, long))
		}
		return withRecords(q, records...)
	})
	s, told := newTestServer(open(), u.at)
	if got := rcodeOf(s.resolve(newTestClient(t, "default/web"), new(dns.Msg).SetQuestion("long.example.", dns.TypeTXT),
		true)); got != "SERVFAIL" {
		t.Errorf("an answer of 5 kB: %s", got)
	}
	c := impatient(t, "default/web")
	*told = nil
	before, failed := len(u.names()), 0
	for i := range 400 {
		if rcodeOf(s.resolve(c, new(dns.Msg).SetQuestion(fmt.Sprintf("s%d.example.", i), dns.TypeTXT),
			false)) == "SERVFAIL" {
			failed++
		}
	}
	if n := len(u.names()) - before; n != 200 || failed != 200 {
		t.Errorf("of 400 questions %d reached the upstream, %d failed", n, failed)
	}
	results := map[string]int{}
	for _, o := range *told {
		results[o.Result]++
	}
	if results["forwarded"] != 200 || results["limited"] != 20 || len(results) != 2 {
		t.Errorf("recorded: %v", results)
	}
	c = newTestClient(t, "default/web")
	for range maxForwards {
		<-c.pending.free // all in use
	}
	if got := rcodeOf(s.resolve(c, new(dns.Msg).SetQuestion("www.example.", dns.TypeA), false)); got != "SERVFAIL" {
		t.Errorf("got %s beyond the bound", got)
	}
	if got := rcodeOf(s.resolve(newTestClient(t, "default/unknown"),
		new(dns.Msg).SetQuestion("www.example.", dns.TypeA),
		false)); got != "SERVFAIL" {
		t.Errorf("got %s for a workload that the control plane does not know", got)
	}
	s.cfg.Upstreams = nil
	if got := rcodeOf(s.resolve(newTestClient(t, "default/web"), new(dns.Msg).SetQuestion("www.example.", dns.TypeA),
		false)); got != "NXDOMAIN" {
		t.Errorf("got %s without upstreams", got)
	}
}
