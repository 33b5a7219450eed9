package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/agentapi"
)

func table() *agentapi.DNSTable {
	return &agentapi.DNSTable{
		Hosts: map[string][]netip.Addr{
			"pay.default.svc.cluster.local":       {netip.MustParseAddr("240.240.0.1")},
			"card.shop.svc.cluster.local":         {netip.MustParseAddr("240.240.0.3")},
			"shop.dev.svc.cluster.local":          {netip.MustParseAddr("240.240.0.4")},
			"dual.example.svc.cluster.local":      {netip.MustParseAddr("240.240.0.5")},
			"localhost.default.svc.cluster.local": {netip.MustParseAddr("240.240.0.6")},
			"cluster.local.svc.cluster.local":     {netip.MustParseAddr("240.240.0.7")},
			"dual.example":                        {netip.MustParseAddr("240.240.0.2"), netip.MustParseAddr("fd00::2")},
		},
		Refusal:         netip.MustParseAddr("240.240.255.1"),
		RefusalSuffixes: []string{"default.svc.cluster.local", "shop.svc.cluster.local"},
		MeshSuffix:      "svc.cluster.local",
	}
}

// open is the table of a mesh whose workloads may call unlisted addresses.
func open() *agentapi.DNSTable {
	t := table()
	t.Forward = true
	return t
}

// A name of one label is one of the asking workload's own namespace.
func TestShortNamesAreOfTheOwnNamespace(t *testing.T) {
	for namespace, want := range map[string][2]string{
		"default": {"240.240.0.1", ""}, "shop": {"", "240.240.0.3"}, "other": {},
	} {
		for i, name := range []string{"pay.", "card."} {
			r, _ := answer(table(), namespace, new(dns.Msg).SetQuestion(name, dns.TypeA))
			if got := addrsOf(r); got != want[i] {
				t.Errorf("%s in %s: %s %q, want %q", name, namespace, rcodeOf(r), got, want[i])
			}
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode string // "upstream": may be forwarded, and does not exist where nothing may be
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
		{"www.example.", dns.TypeTXT, "upstream", ""},
		{"www.example.", dns.TypeHTTPS, "upstream", ""},
		{"dual.example.", dns.TypeTXT, "NOERROR", ""},
		{"dual.example.", dns.TypeHTTPS, "NOERROR", ""},
		{"notsvc.example.", dns.TypeA, "upstream", ""},
		{"svc.cluster.local.example.", dns.TypeA, "NXDOMAIN", ""},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, "upstream", ""},
		{"8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.8.2.ip6.arpa.", dns.TypePTR, "upstream", ""},

		// the mesh's own business
		{"cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"notsvc.cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"www.example.cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"pay.default.svc.cluster.local.cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"pay.default.svc.cluster.local.corp.example.", dns.TypeA, "NXDOMAIN", ""},
		{"c2VjcmV0.", dns.TypeTXT, "NXDOMAIN", ""},
		{"com.", dns.TypeNS, "NXDOMAIN", ""},
		{"web.localhost.", dns.TypeA, "NXDOMAIN", ""},
		{".", dns.TypeNS, "NXDOMAIN", ""},
		{"1.0.240.240.in-addr.arpa.", dns.TypePTR, "NXDOMAIN", ""},
		{"1.0.0.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN", ""},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN", ""},
		{"240.240.in-addr.arpa.", dns.TypeNS, "NXDOMAIN", ""},
		{"secret.1.0.240.240.in-addr.arpa.", dns.TypePTR, "NXDOMAIN", ""},
		{"1.0.0.0.0.f.0.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.ip6.arpa.", dns.TypePTR, "NXDOMAIN", ""},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NXDOMAIN", ""},

		// short names, which a resolver without a search list asks for as they are
		{"pay.", dns.TypeA, "NOERROR", "240.240.0.1"},
		{"PAY.", dns.TypeAAAA, "NOERROR", ""},
		{"pay.default.", dns.TypeA, "NOERROR", "240.240.0.1"},
		{"PAY.default.svc.", dns.TypeA, "NOERROR", "240.240.0.1"},
		{"pay.default.svc.", dns.TypeHTTPS, "NOERROR", ""},
		{"card.shop.svc.", dns.TypeA, "NOERROR", "240.240.0.3"},
		{"card.", dns.TypeA, "NXDOMAIN", ""}, // of another namespace
		{"secret.default.", dns.TypeA, "NOERROR", "240.240.255.1"},
		{"secret.default.svc.", dns.TypeA, "NOERROR", "240.240.255.1"},
		{"secret.default.svc.", dns.TypeTXT, "NOERROR", ""},
		{"secret.", dns.TypeA, "NXDOMAIN", ""},
		{"a.other.svc.", dns.TypeA, "NXDOMAIN", ""},
		{"a.b.default.svc.", dns.TypeA, "NXDOMAIN", ""},
		{"pay.default.default.", dns.TypeA, "upstream", ""},
		{"pay.default.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN", ""},

		// short names take nothing from others
		{"dual.example.", dns.TypeA, "NOERROR", "240.240.0.2"}, // listed, though there is dual in namespace example
		{"www.dev.", dns.TypeA, "upstream", ""},
		{"localhost.", dns.TypeA, "NXDOMAIN", ""},
		{"cluster.local.", dns.TypeA, "NXDOMAIN", ""},
		{"pay.corp.example.", dns.TypeA, "upstream", ""},

		// nobody needs
		{"www.example.", dns.TypeNULL, "NOERROR", ""},
		{"www.example.", dns.TypeANY, "NOERROR", ""},
		{"www.example.", 65280, "NOERROR", ""},
		{"pay.default.svc.cluster.local.", dns.TypeAXFR, "REFUSED", ""},
	} {
		question := new(dns.Msg).SetQuestion(c.name, c.qtype)
		r, _ := answer(open(), "default", question)
		if got := rcodeOf(r); got != c.rcode {
			t.Errorf("%s %s: got %s, want %s", c.name, dns.TypeToString[c.qtype], got, c.rcode)
			continue
		}
		if got := addrsOf(r); got != c.addrs {
			t.Errorf("%s %s: got addresses %q, want %q", c.name, dns.TypeToString[c.qtype], got, c.addrs)
		}
		if c.rcode == "upstream" {
			c.rcode = "NXDOMAIN"
		}
		outside := strings.HasPrefix(c.name, "www.")
		if r, v := answer(table(), "default", question); v == forward || rcodeOf(r) != c.rcode && !outside &&
			c.rcode != "REFUSED" {
			t.Errorf("%s %s: got %s where workloads may call listed addresses only", c.name, dns.TypeToString[c.qtype],
				rcodeOf(r))
		}
	}
}

// Who has IPv6 is refused there as well, and who has nothing else only there: a caller of both versions is refused at
// once by whichever it tries.
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
			r, _ := answer(own, "default", new(dns.Msg).SetQuestion("secret.default.svc.cluster.local.", qtype))
			if rcodeOf(r) != "NOERROR" || addrsOf(r) != want {
				t.Errorf("%s: got %s %q, want %q", dns.TypeToString[qtype], rcodeOf(r), addrsOf(r), want)
			}
		}
	}
}

// A namespace may have the name of a top-level domain. Where names outside can be asked for, a short name that may be
// one of them is answered by nobody: neither does the mesh take what is meant for outside, nor is outside asked for the
// mesh's.
func TestShortNamesInNamespacesNamedLikeDomains(t *testing.T) {
	for name, want := range map[string][2]string{
		"shop.dev.":   {"240.240.0.4", "NXDOMAIN"},
		"card.shop.":  {"240.240.0.3", "NXDOMAIN"},
		"other.shop.": {"240.240.255.1", "upstream"},
	} {
		for i, table := range []*agentapi.DNSTable{table(), open()} {
			r, _ := answer(table, "default", new(dns.Msg).SetQuestion(name, dns.TypeA))
			got := addrsOf(r)
			if got == "" {
				got = rcodeOf(r)
			}
			if got != want[i] {
				t.Errorf("%s, forwarding %v: %s, want %s", name, table.Forward, got, want[i])
			}
		}
	}
}

func TestAnswerBeforeTheControlPlaneSpoke(t *testing.T) {
	r, _ := answer(nil, "default", new(dns.Msg).SetQuestion("www.example.", dns.TypeA))
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
		r, _ := answer(table(), "default", c.q)
		if got := rcodeOf(r); got != c.want {
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

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"pay.default.svc.cluster.local.", "x.default.svc.cluster.local.", "www.example."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := parse(b)
		if q == nil {
			return
		}
		r, v := answer(open(), "default", q)
		if v == forward {
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
