package dns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"
)

// Bounds on what one workload may have forwarded.
const (
	maxForwards       = 64              // at once
	forwardsPerSecond = 50              // in the long run
	forwardBurst      = 200             // at first
	forwardTimeout    = 2 * time.Second // per upstream
	silence           = 200 * time.Millisecond
	maxAnswer         = 4096 // bytes
	askedSize         = 1232 // bytes that an upstream may send over UDP: what passes every network unfragmented
)

// Bounds on the records of refused questions, per workload.
const (
	refusalsPerSecond = 2
	refusalBurst      = 20
)

// forwardedTypes are the record types that programs need to find and verify a server.
var forwardedTypes = []uint16{
	dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeSRV, dns.TypeMX, dns.TypeTXT,
	dns.TypeNS, dns.TypeSOA, dns.TypePTR, dns.TypeCAA,
}

// ExternalQuestion is one question about a name outside the mesh.
type ExternalQuestion struct {
	Workload string // "<namespace>/<name>"
	Name     string
	Type     string
	Result   string // "forwarded", "refused", "failed", or "limited": more than the workload may have asked
}

// client is one workload that asks.
type client struct {
	workload string
	pending  *pending      // the questions sent to an upstream and not answered yet
	forwards *rate.Limiter // of those questions
	refusals *rate.Limiter // of the records of what was not forwarded
}

func newClient(workload string, p *pending) client {
	return client{
		workload: workload, pending: p,
		forwards: rate.NewLimiter(forwardsPerSecond, forwardBurst),
		refusals: rate.NewLimiter(refusalsPerSecond, refusalBurst),
	}
}

// admit finds a slot for one more question to the upstreams; false beyond the bounds of the workload.
func (c client) admit() (slot int, ok bool) {
	if !c.forwards.Allow() {
		return 0, false
	}
	select {
	case slot = <-c.pending.free:
		return slot, true
	default:
		return 0, false
	}
}

// forward asks upstream, within the bounds of the workload.
func (s *Server) forward(c client, q *dns.Msg, tcp bool) *dns.Msg {
	slot, ok := c.admit()
	if !ok {
		return s.notForwarded(c, q)
	}
	defer c.pending.release(slot)
	return s.askUpstreams(c, q, tcp)
}

func (s *Server) askUpstreams(c client, q *dns.Msg, tcp bool) *dns.Msg {
	r := askAll(s.cfg.Upstreams, func(server netip.AddrPort) (*dns.Msg, error) { return ask(q, server, tcp) })
	if r != nil {
		s.counts.forwarded.Add(1)
		s.record(nil, c, q, "forwarded")
		return r
	}
	s.counts.failed.Add(1)
	s.record(nil, c, q, "failed")
	return reply(q, dns.RcodeServerFailure)
}

func (s *Server) notForwarded(c client, q *dns.Msg) *dns.Msg {
	s.counts.failed.Add(1)
	s.record(c.refusals, c, q, "limited")
	return reply(q, dns.RcodeServerFailure)
}

// record reports a question as far as limit allows; nil is no limit.
func (s *Server) record(limit *rate.Limiter, c client, q *dns.Msg, result string) {
	if s.cfg.Record == nil || limit != nil && !limit.Allow() {
		return
	}
	name := strings.ToLower(q.Question[0].Name)
	s.cfg.Record(ExternalQuestion{
		Workload: c.workload, Name: name, Type: dns.Type(q.Question[0].Qtype).String(), Result: result,
	})
}

// askAll asks the upstreams in order, the next one when the one before has failed or stayed silent for a while, so that
// silent ones cost little. It returns the first good answer, or nil.
func askAll(upstreams []netip.AddrPort, ask func(netip.AddrPort) (*dns.Msg, error)) *dns.Msg {
	answers := make(chan *dns.Msg, len(upstreams))
	patience := time.NewTimer(0)
	defer patience.Stop()
	for asked, failed := 0, 0; failed < len(upstreams); {
		var next <-chan time.Time
		if asked < len(upstreams) {
			next = patience.C
		}
		select {
		case r := <-answers:
			if r != nil {
				return r
			}
			failed++
			patience.Reset(0)
		case <-next:
			server := upstreams[asked]
			go func() {
				r, _ := ask(server) // an error is no answer
				answers <- r
			}()
			asked++
			patience.Reset(silence)
		}
	}
	return nil
}

// ask sends a new message: only the name and type of the workload's message reach the upstream, and only the
// matching answer reaches the workload.
func ask(q *dns.Msg, server netip.AddrPort, tcp bool) (*dns.Msg, error) {
	c := &dns.Client{Net: "udp", Timeout: forwardTimeout, UDPSize: askedSize}
	if tcp {
		c.Net = "tcp"
	}
	asked := q.Question[0]
	question := new(dns.Msg).SetQuestion(strings.ToLower(asked.Name), asked.Qtype).SetEdns0(askedSize, false)
	r, _, err := c.Exchange(question, server.String())
	if err != nil {
		return nil, err
	}
	if len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, asked.Name) ||
		r.Question[0].Qtype != asked.Qtype {
		return nil, errors.New("the upstream answered another question")
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, errors.New("the upstream answered " + dns.RcodeToString[r.Rcode])
	}
	return forwardedReply(q, r)
}

// forwardedReply builds the reply to a workload from an upstream's answer.
func forwardedReply(q, r *dns.Msg) (*dns.Msg, error) {
	out := reply(q, r.Rcode)
	out.Authoritative, out.Truncated = false, r.Truncated
	wanted := func(rr dns.RR) bool {
		return rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME
	}
	out.Answer = slices.DeleteFunc(r.Answer, func(rr dns.RR) bool { return !wanted(rr) })
	if len(out.Answer) == 0 {
		out.Ns = slices.DeleteFunc(r.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeSOA })
	}
	if out.Len() > maxAnswer {
		return nil, errors.New("the upstream's answer is too long")
	}
	return out, nil
}
