package authz

import (
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Server is the port whose policies are read.
type Server struct {
	HTTP        bool     // it speaks HTTP; a raw connection has no request to look at
	TrustDomain string   // its own
	Gateways    []string // SPIFFE IDs of its mesh's gateways: the only ones whose word on a peer's caller counts
}

// Rule is one rule in normal form: one of From, which looks at who calls, and one of To, which looks at what is asked.
type Rule struct {
	Policy *model.Policy
	Number int // as written, from 0
	From   []Formula
	To     []Formula
}

// Of says whether the rule matches.
func (r *Rule) Of(q *Request) Truth { return min(Any(r.From).Of(q), Any(r.To).Of(q)) }

// Read brings policies into normal form.
func (s Server) Read(ps model.Policies) Policies {
	return Policies{
		Deny: s.rules(ps.Deny), Allow: s.rules(ps.Allow), DefaultAllow: len(ps.Allow) == 0 && ps.DefaultAllow,
	}
}

func (s Server) rules(list []*model.Policy) []Rule {
	var out []Rule
	for _, p := range list {
		for _, r := range p.Rules {
			if rule, ok := s.rule(p, r); ok {
				out = append(out, rule)
			}
		}
	}
	return out
}

// rule leaves out what can never match; ok is false where nothing is left. On raw TCP an ALLOW rule with a field of a
// request is dropped whole, and a DENY rule loses the field (Istio: AuthorizationPolicy on TCP ports).
func (s Server) rule(p *model.Policy, r model.Rule) (rule Rule, ok bool) {
	refusing := p.Action == model.Deny
	if !s.HTTP && !refusing && r.NeedsHTTP() {
		return Rule{}, false
	}
	var whenFrom, whenTo []Formula
	for _, w := range r.When {
		from, to := s.condition(w, refusing)
		whenFrom, whenTo = append(whenFrom, from...), append(whenTo, to...)
	}
	rule = Rule{Policy: p, Number: r.Number}
	from, to := r.From, r.To
	if len(from) == 0 {
		from = []model.Source{{}}
	}
	if len(to) == 0 {
		to = []model.Operation{{}}
	}
	for _, f := range from {
		rule.From = append(rule.From, allOf(append(s.source(f, refusing), whenFrom...)))
	}
	for _, o := range to {
		rule.To = append(rule.To, allOf(append(s.operation(o, refusing), whenTo...)))
	}
	rule.From, rule.To = slices.DeleteFunc(rule.From, isNever), slices.DeleteFunc(rule.To, isNever)
	return rule, len(rule.From) > 0 && len(rule.To) > 0
}

// source looks at who calls. What cannot be told for sure is taken to match where that refuses (refusing), and not to
// match where it would allow.
func (s Server) source(f model.Source, refusing bool) []Formula {
	var out []Formula
	out = clauses(out, f.Principals, nil, s.principal(refusing))
	out = clauses(out, nil, f.NotPrincipals, s.principal(!refusing))
	out = clauses(out, f.ServiceAccounts, nil, s.principal(refusing))
	out = clauses(out, nil, f.NotServiceAccounts, s.principal(!refusing))
	out = clauses(out, f.Namespaces, f.NotNamespaces, s.namespace)
	out = clauses(out, f.TrustDomains, nil, s.trustDomain(refusing))
	out = clauses(out, nil, f.NotTrustDomains, s.trustDomain(!refusing))
	for _, blocks := range [][2][]netip.Prefix{{f.IPBlocks, f.NotIPBlocks}, {f.RemoteIPBlocks, f.NotRemoteIPBlocks}} {
		out = clauses(out, blocks[0], nil, comesFrom(refusing))
		out = clauses(out, nil, blocks[1], comesFrom(!refusing))
	}
	return out
}

// principal compares the caller, or for an identity of a peer mesh the one that a gateway of this mesh asserts. A raw
// connection names no caller at a peer: refusing one refuses all that the gateways carry.
func (s Server) principal(refusing bool) func(model.Principal) Formula {
	return func(p model.Principal) Formula {
		switch {
		case p.Peer == "":
			return Caller{Comparison{Match: p.Match}}
		case s.HTTP:
			return s.asserted(Comparison{Match: p.Match})
		case refusing:
			return s.fromGateway()
		}
		return never
	}
}

// asserted is a request of one of this mesh's gateways for a caller at a peer.
func (s Server) asserted(c Comparison) Formula { return allOf([]Formula{s.fromGateway(), Asserted{c}}) }

func (s Server) fromGateway() Formula {
	return oneOf(each(s.Gateways, func(id string) Formula { return Caller{Comparison{Match: model.Match{Value: id}}} }))
}

// namespace compares that of a caller in this mesh; "*" is any run of characters.
func (s Server) namespace(ns string) Formula {
	return Caller{segment(WorkloadsOf(s.TrustDomain), ns, "/")}
}

// trustDomain compares the caller's: for what a gateway carries, that of the caller at the peer.
func (s Server) trustDomain(refusing bool) func(string) Formula {
	return func(td string) Formula {
		in := segment("spiffe://", td, "/ns/")
		if len(s.Gateways) == 0 {
			return Caller{in}
		}
		direct := All{Not{s.fromGateway()}, Caller{in}}
		switch {
		case td == s.TrustDomain:
			return direct
		case s.HTTP:
			return Any{direct, s.asserted(in)}
		case refusing:
			return Any{direct, s.fromGateway()}
		}
		return direct
	}
}

// segment compares what follows a text up to the next "/"; without "*" it is a plain prefix, with an end of its own.
func segment(before, pattern, end string) Comparison {
	if strings.Contains(pattern, "*") {
		return Comparison{Match: model.Match{Kind: model.Prefix, Value: before}, Segment: pattern}
	}
	return Comparison{Match: model.Match{Kind: model.Prefix, Value: before + pattern + end}}
}

// WorkloadsOf begins the identity of every workload of a trust domain. Nodes, the control plane and administrators have
// other ones, which no workload accepts.
func WorkloadsOf(td string) string { return "spiffe://" + td + "/ns/" }

// comesFrom compares where a connection comes from. Nobody's word on that counts here (x-forwarded-for). A call that
// was handed over inside the proxy may have no address: it is taken to come from anywhere where that refuses.
func comesFrom(refusing bool) func(netip.Prefix) Formula {
	return func(p netip.Prefix) Formula {
		if !refusing {
			return Source(p)
		}
		return Any{Source(p), Not{Any{Source(everyIPv4), Source(everyIPv6)}}}
	}
}

var (
	everyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	everyIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// Operation looks at what is asked for, as a rule that allows does.
func Operation(o model.Operation) Formula { return allOf(Server{HTTP: true}.operation(o, false)) }

// operation looks at what is asked for. What can be spelled in several ways matches in all of them where that refuses
// (refusing), and as it is written where it allows.
func (s Server) operation(o model.Operation, refusing bool) []Formula {
	var out []Formula
	if s.HTTP {
		out = clauses(out, o.Hosts, o.NotHosts, host)
		out = clauses(out, o.Methods, nil, method(refusing))
		out = clauses(out, nil, o.NotMethods, method(!refusing))
		if len(o.Paths) > 0 {
			out = append(out, Path{o.Paths, refusing})
		}
		if len(o.NotPaths) > 0 {
			out = append(out, Not{Path{o.NotPaths, !refusing}})
		}
	}
	return clauses(out, o.Ports, o.NotPorts, port)
}

func port(p uint16) Formula { return Port(p) }

// condition looks at who calls, or at what is asked.
func (s Server) condition(w model.Condition, refusing bool) (from, to []Formula) {
	name, isHeader := strings.CutPrefix(w.Key, "request.headers[")
	name = strings.TrimSuffix(name, "]")
	switch {
	case isHeader && s.HTTP && refusing:
		to = clauses(clauses(to, w.Matches, nil, listed(name)), nil, w.NotMatches, header(name))
	case isHeader && s.HTTP:
		to = clauses(clauses(to, w.Matches, nil, header(name)), nil, w.NotMatches, listed(name))
	case w.Key == "connection.sni":
		to = clauses(to, w.Matches, w.NotMatches, func(m model.Match) Formula { return SNI{Comparison{Match: m}} })
	case w.Key == "destination.ip":
		to = clauses(to, w.Prefixes, w.NotPrefixes, func(p netip.Prefix) Formula { return Destination(p) })
	case w.Key == "destination.port":
		to = clauses(to, w.Ports, w.NotPorts, port)
	case w.Key == "source.ip", w.Key == "remote.ip":
		from = clauses(clauses(from, w.Prefixes, nil, comesFrom(refusing)), nil, w.NotPrefixes, comesFrom(!refusing))
	case strings.HasPrefix(w.Key, "source."):
		source := func(refusing bool) func(model.Source) Formula {
			return func(f model.Source) Formula { return allOf(s.source(f, refusing)) }
		}
		from = clauses(clauses(from, w.Sources, nil, source(refusing)), nil, w.NotSources, source(!refusing))
	}
	return from, to
}

// clauses adds "one of yes" and "none of no".
func clauses[V any](out []Formula, yes, no []V, one func(V) Formula) []Formula {
	if len(yes) > 0 {
		out = append(out, oneOf(each(yes, one)))
	}
	if len(no) > 0 {
		if f := oneOf(each(no, one)); !isNever(f) {
			out = append(out, Not{f})
		}
	}
	return out
}

func each[V any](list []V, one func(V) Formula) []Formula {
	out := make([]Formula, 0, len(list))
	for _, v := range list {
		out = append(out, one(v))
	}
	return out
}

// never is the formula that nothing fulfils.
var never = Any{}

func isNever(f Formula) bool {
	any, ok := f.(Any)
	return ok && len(any) == 0
}

// allOf is never where one of them is.
func allOf(list []Formula) Formula {
	if slices.ContainsFunc(list, isNever) {
		return never
	}
	if len(list) == 1 {
		return list[0]
	}
	return All(list)
}

// oneOf leaves out what never holds.
func oneOf(list []Formula) Formula {
	list = slices.DeleteFunc(list, isNever)
	if len(list) == 1 {
		return list[0]
	}
	return Any(list)
}
