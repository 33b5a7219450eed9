// Package dns answers a workload's questions: mesh names from the control plane's tables, everything else by asking
// upstream.
package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
)

// ttl of every answer from a table, in seconds.
const ttl = 5

// verdict is what happens to a question.
type verdict int

const (
	refused  verdict = iota // the name is not the mesh's, and the question goes nowhere
	answered                // from the table, or because it is no question that anybody answers
	forward                 // to be asked upstream
)

// answer answers q from the table of a workload in a namespace. The reply is nil if the question may be forwarded. A
// nil table means that the control plane has sent none yet, so nothing is known of any name.
func answer(table *agentapi.DNSTable, namespace string, q *dns.Msg) (*dns.Msg, verdict) {
	if bad := malformed(q); bad != nil {
		return bad, answered
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	if table == nil {
		return reply(q, dns.RcodeServerFailure), answered
	}
	full := searched(table, namespace, name)
	switch {
	case table.Hosts[name] != nil:
		return addresses(q, table.Hosts[name]), answered
	case table.Hosts[full] != nil:
		return addresses(q, table.Hosts[full]), answered
	case looksLikeService(table, name), looksLikeService(table, full) && strings.Contains(name, "."):
		return addresses(q, []netip.Addr{table.Refusal, table.Refusal6}), answered
	case exists(table, name):
		return addresses(q, nil), answered
	case inner(table, name):
		return negative(q, dns.RcodeNameError), answered
	case !table.Forward:
		return negative(q, dns.RcodeNameError), refused
	case !slices.Contains(forwardedTypes, question.Qtype):
		return negative(q, dns.RcodeSuccess), refused // some resolvers wait for another answer than REFUSED
	}
	return nil, forward
}

// malformed answers anything but a plain question, before any name is looked up.
func malformed(q *dns.Msg) *dns.Msg {
	switch {
	case q.Response || q.Opcode != dns.OpcodeQuery:
		return reply(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		return reply(q, dns.RcodeFormatError)
	case q.Question[0].Qclass != dns.ClassINET,
		q.Question[0].Qtype == dns.TypeAXFR, q.Question[0].Qtype == dns.TypeIXFR:
		return reply(q, dns.RcodeRefused)
	}
	return nil
}

// looksLikeService: the name has the form of a service, which this workload may not call or which does not exist.
func looksLikeService(t *agentapi.DNSTable, name string) bool {
	if !t.Refusal.IsValid() && !t.Refusal6.IsValid() {
		return false
	}
	label, suffix, ok := strings.Cut(name, ".")
	if !ok || label == "" {
		return false
	}
	for _, s := range t.RefusalSuffixes {
		if suffix == s {
			return true
		}
	}
	return false
}

// exists: the name is a parent of names that exist, so it exists too, without addresses.
func exists(t *agentapi.DNSTable, name string) bool {
	if name == t.MeshSuffix {
		return true
	}
	for _, s := range t.RefusalSuffixes {
		if name == s {
			return true
		}
	}
	return false
}

// addresses answers an A or AAAA question with the addresses of that family; any other type with nothing.
func addresses(q *dns.Msg, addrs []netip.Addr) *dns.Msg {
	question := q.Question[0]
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
	r := reply(q, dns.RcodeSuccess)
	for _, a := range addrs {
		switch {
		case question.Qtype == dns.TypeA && a.Unmap().Is4():
			r.Answer = append(r.Answer, &dns.A{Hdr: header, A: a.Unmap().AsSlice()})
		case question.Qtype == dns.TypeAAAA && a.Is6() && !a.Is4In6():
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	if len(r.Answer) == 0 {
		return negative(q, dns.RcodeSuccess)
	}
	return r
}

// negative returns an answer that there is no such record, and how long that is valid.
func negative(q *dns.Msg, rcode int) *dns.Msg {
	r := reply(q, rcode)
	r.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "isthmus.invalid.", Mbox: "isthmus.invalid.", Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl,
		Minttl: ttl,
	}}
	return r
}

func reply(q *dns.Msg, rcode int) *dns.Msg {
	r := new(dns.Msg)
	r.SetRcode(q, rcode)
	r.RecursionAvailable = true
	r.Authoritative = rcode == dns.RcodeSuccess || rcode == dns.RcodeNameError
	if opt := q.IsEdns0(); opt != nil {
		r.SetEdns0(opt.UDPSize(), false)
	}
	return r
}
