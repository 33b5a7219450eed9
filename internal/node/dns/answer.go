// Package dns answers a workload's questions: mesh names from the control plane's tables, everything else by asking upstream.
package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
)

// ttl of every answer from a table, in seconds.
const ttl = 5

// answer replies to q from the table. A nil reply means that the name is not the mesh's: ask upstream.
// A nil table means that the control plane has not told yet: then nothing can be known of any name.
func answer(table *agentapi.DNSTable, q *dns.Msg) *dns.Msg {
	if bad := refuse(q); bad != nil {
		return bad
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	switch {
	case table == nil:
		return reply(q, dns.RcodeServerFailure)
	case table.Hosts[name] != nil:
		return addresses(q, table.Hosts[name])
	case refused(table, name):
		return addresses(q, []netip.Addr{table.Refusal, table.Refusal6})
	case table.MeshSuffix == "" || !within(name, table.MeshSuffix):
		return nil
	case inner(table, name):
		return addresses(q, nil)
	}
	return negative(q, dns.RcodeNameError)
}

// refuse answers what is not a plain question, before any name is looked at.
func refuse(q *dns.Msg) *dns.Msg {
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

// refused: the name has the form of a service that this workload may not call, or that does not exist.
func refused(t *agentapi.DNSTable, name string) bool {
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

// inner: the name stands above names that exist, so it exists too, with no addresses.
func inner(t *agentapi.DNSTable, name string) bool {
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

func within(name, suffix string) bool {
	return name == suffix || strings.HasSuffix(name, "."+suffix)
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

// negative says that there is nothing, and for how long to believe it.
func negative(q *dns.Msg, rcode int) *dns.Msg {
	r := reply(q, rcode)
	r.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "isthmus.invalid.", Mbox: "isthmus.invalid.", Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
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
