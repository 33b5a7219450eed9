package dns

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/waittest"
)

// serveAt answers default/web's questions on the loopback, from the sockets of an earlier server if there are any.
func serveAt(t testing.TB, s *Server, kept ...*os.File) (socks *Sockets, addr string) {
	t.Helper()
	socks, err := s.Listen(Listener{Workload: "default/web", Inherited: kept})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = socks.Run(t.Context()) })
	t.Cleanup(running.Wait)
	return socks, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(socks.Port)))
}

// question sends one, from a socket of its own.
func question(t testing.TB, addr, name string) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err == nil {
		_, err = conn.Write(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// answerTo waits for the answer to a question, which was sent once.
func answerTo(t testing.TB, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, maxAnswer)
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var r dns.Msg
	if err := r.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	return rcodeOf(&r)
}

// An agent that is killed between reading a question and answering it leaves it to the next one: nobody has to ask
// twice.
func TestAQuestionOutlivesTheAgentThatReadIt(t *testing.T) {
	reached, dead := make(chan struct{}), make(chan struct{})
	first := New(Config{Log: slog.New(slog.DiscardHandler), Record: func(ExternalQuestion) {
		close(reached)
		<-dead // it never comes to answer
	}})
	first.SetTables(map[string]agentapi.DNSTable{"default/web": *table()})
	socks, addr := serveAt(t, first)
	t.Cleanup(func() { close(dead) })
	t.Cleanup(socks.Close) // before it goes on: the dead take nothing out of the queue
	unlucky := question(t, addr, "www.example.")
	<-reached
	later := question(t, addr, "pay.default.svc.cluster.local.")

	second, _ := newTestServer(table())
	serveAt(t, second, socks.Files()...)
	if got := answerTo(t, unlucky); got != "NXDOMAIN" {
		t.Errorf("the question that was read is answered %s", got)
	}
	if got := answerTo(t, later); got != "NOERROR" {
		t.Errorf("the question behind it is answered %s", got)
	}
}

// The same for a question that is being asked upstream: the next agent asks it again.
func TestAQuestionOutlivesTheAgentThatAskedUpstream(t *testing.T) {
	asked, dead := make(chan struct{}, 100), make(chan struct{})
	silent := newUpstream(t, func(q *dns.Msg) *dns.Msg {
		asked <- struct{}{}
		<-dead
		return withRecords(q)
	})
	first, _ := newTestServer(open(), silent.at)
	socks, addr := serveAt(t, first)
	t.Cleanup(func() { close(dead) })
	unlucky := question(t, addr, "www.example.")
	<-asked
	if got := answerTo(t, question(t, addr, "pay.default.svc.cluster.local.")); got != "NOERROR" {
		t.Errorf("a name of the mesh behind it is answered %s", got)
	}
	prompt := newUpstream(t, func(q *dns.Msg) *dns.Msg {
		return withRecords(q, q.Question[0].Name+" 60 IN A 192.0.2.7")
	})
	second, _ := newTestServer(open(), prompt.at)
	var kept []*os.File
	for _, f := range socks.Files() {
		dup, err := duplicate(f)
		if err != nil {
			t.Fatal(err)
		}
		defer dup.Close()
		kept = append(kept, dup)
	}
	socks.Close()
	next, _ := serveAt(t, second, kept...)
	if got := answerTo(t, unlucky); got != "NOERROR" {
		t.Errorf("the question is answered %s", got)
	}
	eventuallyFree(t, next.udp[0].client.pending)
	third, told := newTestServer(open(), prompt.at)
	serveAt(t, third, next.Files()...)
	if got := answerTo(t, question(t, addr, "pay.default.svc.cluster.local.")); got != "NOERROR" || len(*told) > 0 {
		t.Errorf("%s; what was answered is asked again: %v", got, *told)
	}
}

// eventuallyFree waits until no question is under way.
func eventuallyFree(t *testing.T, p *pending) {
	t.Helper()
	waittest.Until(t, "all slots are free", func() bool { return len(p.free) == maxForwards })
}

// What many programs ask while no agent runs waits for the next one.
func TestManyQuestionsWaitForAnAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("room for them takes CAP_NET_ADMIN")
	}
	s, _ := newTestServer(table())
	socks, err := s.Listen(Listener{Workload: "default/web"})
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(socks.Port)))
	var all []net.Conn
	for range 600 {
		all = append(all, question(t, addr, "pay.default.svc.cluster.local."))
	}
	var running sync.WaitGroup
	running.Go(func() { _ = socks.Run(t.Context()) })
	t.Cleanup(running.Wait)
	for _, conn := range all {
		if got := answerTo(t, conn); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
	}
}

// A question that makes the agent panic is taken out, or it would end every agent to come.
func TestAQuestionThatPanicsIsDropped(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler), Record: func(ExternalQuestion) { panic("a fault") }})
	s.SetTables(map[string]agentapi.DNSTable{"default/web": *table()})
	_, addr := serveAt(t, s)
	question(t, addr, "www.example.")
	if got := answerTo(t, question(t, addr, "pay.default.svc.cluster.local.")); got != "NOERROR" {
		t.Errorf("the question behind it is answered %s", got)
	}
}

// What is no question is dropped, what cannot be read is told so, and neither stays at the head of the queue.
func TestOddMessagesOverUDP(t *testing.T) {
	s, _ := newTestServer(table())
	_, addr := serveAt(t, s)
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response, err := new(dns.Msg).SetRcode(new(dns.Msg).SetQuestion("a.", dns.TypeA), dns.RcodeSuccess).Pack()
	if err != nil {
		t.Fatal(err)
	}
	cut := make([]byte, 12)
	cut[5] = 1 // one question, which is not there
	for _, m := range [][]byte{{}, {1}, response, cut, make([]byte, 4000)} {
		if _, err := conn.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the last two
		if got := answerTo(t, conn); got != "FORMERR" {
			t.Errorf("answered %s", got)
		}
	}
	if got := answerTo(t, question(t, addr, "pay.default.svc.cluster.local.")); got != "NOERROR" {
		t.Errorf("then a question is answered %s", got)
	}
}

// BenchmarkQuestions has 32 questions wait at a time.
func BenchmarkQuestions(b *testing.B) {
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	s.SetTables(map[string]agentapi.DNSTable{"default/web": *table()})
	_, addr := serveAt(b, s)
	conn, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	m, err := new(dns.Msg).SetQuestion("pay.default.svc.cluster.local.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	const window = 32
	buf := make([]byte, maxAnswer)
	b.ResetTimer()
	for n := range b.N + window {
		if n < b.N {
			_, err = conn.Write(m)
		}
		if n >= window && err == nil {
			_, err = conn.Read(buf)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
