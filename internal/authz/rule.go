package authz

import (
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Server is the port that the policies protect.
type Server struct {
	HTTP        bool     // a raw connection has no request to look at
	TrustDomain string   // the server's own
	Gateways    []string // SPIFFE IDs of its mesh's gateways; only these may assert a peer's caller
}

// Rule is one rule in normal form: a From formula (who calls) and a To formula (what is asked) must both hold.
type Rule struct {
	Policy *model.Policy
	Number int // index in the policy's spec.rules
	From   []Formula
	To     []Formula
}

// Of evaluates the rule.
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

// rule drops what can never match. ok is false if nothing is left. On raw TCP, an ALLOW rule that tests a request's
// fields is dropped whole, and a DENY rule loses the field (Istio: AuthorizationPolicy on TCP ports).
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

// source translates a source. A test that cannot be decided counts as a match in a DENY rule (refusing) and as a
// mismatch in an ALLOW rule.
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
		out = clauses(out, blocks[0], nil, sourceAddress(refusing))
		out = clauses(out, nil, blocks[1], sourceAddress(!refusing))
	}
	return out
}

// principal compares the caller or, for an identity of a peer mesh, the caller that a gateway of this mesh asserts. A
// raw connection carries no assertion, so denying a peer's caller there denies everything from the gateways.
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

// asserted matches a request from one of this mesh's gateways for a caller at a peer.
func (s Server) asserted(c Comparison) Formula { return allOf([]Formula{s.fromGateway(), Asserted{c}}) }

func (s Server) fromGateway() Formula {
	return oneOf(each(s.Gateways, func(id string) Formula { return Caller{Comparison{Match: model.Match{Value: id}}} }))
}

// namespace compares the namespace of a caller in this mesh. "*" matches any characters.
func (s Server) namespace(ns string) Formula {
	return Caller{segment(WorkloadsOf(s.TrustDomain), ns, "/")}
}

// trustDomain compares the caller's trust domain. For requests from a gateway that is the asserted caller's.
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

// segment compares the text between before and the next "/". Without "*" it is a plain prefix that ends in end.
func segment(before, pattern, end string) Comparison {
	if strings.Contains(pattern, "*") {
		return Comparison{Match: model.Match{Kind: model.Prefix, Value: before}, Segment: pattern}
	}
	return Comparison{Match: model.Match{Kind: model.Prefix, Value: before + pattern + end}}
}

// WorkloadsOf returns the prefix of the identities of all workloads in a trust domain. Nodes, the control plane and
// administrators have other prefixes, which no workload accepts.
func WorkloadsOf(td string) string { return "spiffe://" + td + "/ns/" }

// sourceAddress compares the address that a connection comes from. x-forwarded-for is not trusted. A call that stayed
// inside the proxy may have no address; it counts as any address in a DENY rule.
func sourceAddress(refusing bool) func(netip.Prefix) Formula {
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

// Operation translates an operation as in an ALLOW rule.
func Operation(o model.Operation) Formula { return allOf(Server{HTTP: true}.operation(o, false)) }

// operation translates an operation. A value with several equivalent spellings matches all of them in a DENY rule
// (refusing), and only itself in an ALLOW rule.
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

// condition translates a condition into tests of the caller and tests of the request.
func (s Server) condition(w model.Condition, refusing bool) (from, to []Formula) {
	name, isHeader := strings.CutPrefix(w.Key, "request.headers[")
	name = strings.TrimSuffix(name, "]")
	switch {
	case isHeader && s.HTTP && refusing:
		to = clauses(clauses(to, w.Matches, nil, listHeader(name)), nil, w.NotMatches, header(name))
	case isHeader && s.HTTP:
		to = clauses(clauses(to, w.Matches, nil, header(name)), nil, w.NotMatches, listHeader(name))
	case w.Key == "connection.sni":
		to = clauses(to, w.Matches, w.NotMatches, func(m model.Match) Formula { return SNI{Comparison{Match: m}} })
	case w.Key == "destination.ip":
		to = clauses(to, w.Prefixes, w.NotPrefixes, func(p netip.Prefix) Formula { return Destination(p) })
	case w.Key == "destination.port":
		to = clauses(to, w.Ports, w.NotPorts, port)
	case w.Key == "source.ip", w.Key == "remote.ip":
		from = clauses(clauses(from, w.Prefixes, nil, sourceAddress(refusing)), nil, w.NotPrefixes,
			sourceAddress(!refusing))
	case strings.HasPrefix(w.Key, "source."):
		source := func(refusing bool) func(model.Source) Formula {
			return func(f model.Source) Formula { return allOf(s.source(f, refusing)) }
		}
		from = clauses(clauses(from, w.Sources, nil, source(refusing)), nil, w.NotSources, source(!refusing))
	}
	return from, to
}

// clauses appends "one of yes" and "none of no".
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

// never is the formula that never holds.
var never = Any{}

func isNever(f Formula) bool {
	any, ok := f.(Any)
	return ok && len(any) == 0
}

// allOf is never if an element is.
func allOf(list []Formula) Formula {
	if slices.ContainsFunc(list, isNever) {
		return never
	}
	if len(list) == 1 {
		return list[0]
	}
	return All(list)
}

// oneOf drops elements that never hold.
func oneOf(list []Formula) Formula {
	list = slices.DeleteFunc(list, isNever)
	if len(list) == 1 {
		return list[0]
	}
	return Any(list)
}
