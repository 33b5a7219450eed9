package authz

import (
	"net/netip"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

const (
	till    = "spiffe://m.example/ns/a/sa/till"
	clerk   = "spiffe://m.example/ns/ab/sa/clerk"
	gateway = "spiffe://m.example/ns/isthmus-system/sa/gateway"
	theirs  = "spiffe://p.example/ns/a/sa/till"
)

func exact(id string) model.Principal { return model.Principal{Match: model.Match{Value: id}} }

func ofPeer(id string) model.Principal {
	return model.Principal{Match: model.Match{Value: id}, Peer: "p"}
}

func from(s model.Source) model.Rule { return model.Rule{From: []model.Source{s}} }

func policy(action model.Action, rules ...model.Rule) *model.Policy {
	for n := range rules {
		rules[n].Number = n
	}
	return &model.Policy{Name: "ns/" + action.String(), Ref: model.Ref(action.String()), Action: action, Rules: rules}
}

func allow(rules ...model.Rule) model.Policies {
	return model.Policies{Allow: []*model.Policy{policy(model.Allow, rules...)}}
}

// deny allows everything else.
func deny(rules ...model.Rule) model.Policies {
	return model.Policies{Deny: []*model.Policy{policy(model.Deny, rules...)}, DefaultAllow: true}
}

// TestDecide: what policies mean, for requests that are known in part.
func TestDecide(t *testing.T) {
	get := []model.Operation{{Methods: []model.Match{{Value: "GET"}}}}
	reads := from(model.Source{Principals: []model.Principal{exact(till)}})
	reads.To = get
	mixed := from(model.Source{Principals: []model.Principal{exact(till), ofPeer(theirs)}})
	within := func(ns string) model.Rule { return from(model.Source{Namespaces: []string{ns}}) }
	lan := from(model.Source{IPBlocks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	role := model.Rule{When: []model.Condition{{
		Key:     "request.headers[x-role]",
		Matches: []model.Match{{Value: "admin"}},
	}}}
	asserted := func(id string) Request { return Request{Caller: Is(gateway), Asserted: Is(id)} }
	for name, c := range map[string]struct {
		raw      bool
		policies model.Policies
		request  Request
		want     Decision
	}{
		"nothing allows":     {false, model.Policies{}, Request{}, Denied},
		"the default allows": {false, model.Policies{DefaultAllow: true}, Request{}, Allowed},
		"an ALLOW without rules": {
			false,
			model.Policies{Allow: []*model.Policy{policy(model.Allow)}, DefaultAllow: true},
			Request{},
			Denied,
		},
		"a rule without fields":  {false, allow(model.Rule{}), Request{}, Allowed},
		"caller, method unknown": {false, allow(reads), Request{Caller: Is(till)}, Depends},
		"caller and method": {
			false, allow(reads),
			Request{Caller: Is(till), Method: Is("GET")},
			Allowed,
		},
		"the method in small letters": {
			false, allow(reads),
			Request{Caller: Is(till), Method: Is("get")},
			Denied,
		},
		"a DENY of it sees through": {
			false, deny(reads),
			Request{Caller: Is(till), Method: Is("get")},
			Denied,
		},
		"another caller": {false, allow(reads), Request{Caller: Is(clerk)}, Denied},
		"no caller":      {false, allow(reads), Request{Caller: None()}, Denied},
		"some caller of a namespace": {
			false, allow(within("a")),
			Request{Caller: Begins("spiffe://m.example/ns/a/")},
			Allowed,
		},
		"some caller of others": {
			false, allow(within("a")),
			Request{Caller: Begins("spiffe://m.example/ns/b")},
			Denied,
		},
		"some caller of perhaps another": {
			false, allow(within("a")),
			Request{Caller: Begins("spiffe://m.example/ns/a")},
			Depends,
		},
		"a namespace is not a beginning":    {false, allow(within("a")), Request{Caller: Is(clerk)}, Denied},
		"a namespace with *":                {false, allow(within("a*")), Request{Caller: Is(clerk)}, Allowed},
		"* ends at the namespace":           {false, allow(within("*till")), Request{Caller: Is(till)}, Denied},
		"raw: a rule with a method is gone": {true, allow(reads), Request{Caller: Is(till)}, Denied},
		"raw: a DENY loses its method":      {true, deny(reads), Request{Caller: Is(till)}, Denied},
		"raw: a DENY loses its header":      {true, deny(role), Request{}, Denied},
		"HTTP: the header decides":          {false, deny(role), Request{}, Depends},
		"HTTP: one of a list": {
			false, deny(role),
			Request{Headers: map[string]Text{"x-role": Is("user, admin")}},
			Denied,
		},
		"HTTP: ALLOW compares the whole": {
			false, allow(role),
			Request{Headers: map[string]Text{"x-role": Is("user, admin")}},
			Denied,
		},
		"an address is not known":    {false, allow(lan), Request{}, Depends},
		"there is none: not allowed": {false, allow(lan), Request{Source: Nowhere()}, Denied},
		"there is none: refused":     {false, deny(lan), Request{Source: Nowhere()}, Denied},
		"a peer's caller":            {false, allow(mixed), asserted(theirs), Allowed},
		"another of the peer's":      {false, allow(mixed), asserted(theirs + "s"), Denied},
		"whoever else says that he is it": {
			false, allow(mixed),
			Request{Caller: Is(clerk), Asserted: Is(theirs)},
			Denied,
		},
		"the gateway, caller not known":   {false, allow(mixed), Request{Caller: Is(gateway)}, Depends},
		"raw: the rule's own caller":      {true, allow(mixed), Request{Caller: Is(till)}, Allowed},
		"raw: the gateway for the peer's": {true, allow(mixed), Request{Caller: Is(gateway)}, Denied},
		"raw: a DENY of the peer's":       {true, deny(mixed), Request{Caller: Is(gateway)}, Denied},
		"a peer's domain": {
			false, allow(from(model.Source{TrustDomains: []string{"p.example"}})),
			asserted(theirs), Allowed,
		},
		"the own domain is not the gateway's": {
			false, allow(from(model.Source{TrustDomains: []string{"m.example"}})),
			asserted(theirs), Denied,
		},
		"the own domain": {
			false, allow(from(model.Source{TrustDomains: []string{"m.example"}})),
			Request{Caller: Is(till)},
			Allowed,
		},
		"raw: another domain than the peer's": {
			true,
			allow(from(model.Source{NotTrustDomains: []string{"p.example"}})),
			Request{Caller: Is(gateway)},
			Denied,
		},
		"raw: a DENY of any domain but another": {
			true,
			deny(from(model.Source{NotTrustDomains: []string{"q.example"}})),
			Request{Caller: Is(till)},
			Denied,
		},
	} {
		s := Server{HTTP: !c.raw, TrustDomain: "m.example", Gateways: []string{gateway}}
		if got := s.Read(c.policies).Decide(c.request); got.Decision != c.want {
			t.Errorf("%s: %s, want %s", name, got.Decision, c.want)
		}
	}
}

// TestRulings: a verdict names the rules that give it, as they are numbered in their policies.
func TestRulings(t *testing.T) {
	ps := Server{HTTP: true, TrustDomain: "m.example"}.Read(model.Policies{
		Deny: []*model.Policy{policy(model.Deny, from(model.Source{Namespaces: []string{"b"}}),
			from(model.Source{Namespaces: []string{"ab"}}))},
		Allow: []*model.Policy{policy(model.Allow, from(model.Source{Principals: []model.Principal{ofPeer(theirs)}}),
			from(model.Source{Principals: []model.Principal{exact(till)}}),
			model.Rule{To: []model.Operation{{Methods: []model.Match{{Value: "GET"}}}}})},
	})
	type by struct {
		ref    model.Ref
		number int
		truth  Truth
	}
	for id, want := range map[string][]by{
		clerk: {{"DENY", 1, Always}},
		till:  {{"ALLOW", 1, Always}, {"ALLOW", 2, Maybe}},
	} {
		var got []by
		for _, r := range ps.Decide(Request{Caller: Is(id)}).By {
			got = append(got, by{r.Policy.Ref, r.Number, r.Truth})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", id, got, want)
		}
	}
}

// TestCallers: of thousands of callers those that could pass, by name or by pattern.
func TestCallers(t *testing.T) {
	among := []string{till, clerk, "spiffe://m.example/ns/b/sa/x"}
	slices.Sort(among)
	for name, c := range map[string]struct {
		policies model.Policies
		want     []string
	}{
		"named": {allow(from(model.Source{Principals: []model.Principal{
			exact(till),
			exact("spiffe://m.example/ns/c/sa/x"),
		}})), []string{till}},
		"named but denied": {model.Policies{
			Deny:  deny(from(model.Source{Namespaces: []string{"a"}})).Deny,
			Allow: allow(from(model.Source{Principals: []model.Principal{exact(till)}})).Allow,
		}, nil},
		"by a pattern": {allow(from(model.Source{Namespaces: []string{"a*"}})), []string{till, clerk}},
		"named, and anybody": {allow(from(model.Source{Principals: []model.Principal{exact(till)}}),
			model.Rule{To: []model.Operation{{Methods: []model.Match{{Value: "GET"}}}}}), among},
		"by default": {model.Policies{DefaultAllow: true}, among},
		"all but some": {
			allow(from(model.Source{NotPrincipals: []model.Principal{exact(till)}})),
			[]string{clerk, "spiffe://m.example/ns/b/sa/x"},
		},
		"a peer's": {allow(from(model.Source{Principals: []model.Principal{ofPeer(theirs)}})), nil},
	} {
		var got []string
		for id := range (Server{
			HTTP: true, TrustDomain: "m.example",
			Gateways: []string{gateway},
		}).Read(c.policies).Callers(among, Request{}) {
			got = append(got, id)
		}
		if slices.Sort(c.want); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestAdmission: whom the handshake of a raw port admits.
func TestAdmission(t *testing.T) {
	ends := func(v string) model.Rule {
		return from(model.Source{Principals: []model.Principal{{Match: model.Match{Kind: model.Suffix, Value: v}}}})
	}
	prefix := func(v string) model.Match { return model.Match{Kind: model.Prefix, Value: v} }
	suffix := func(v string) model.Match { return model.Match{Kind: model.Suffix, Value: v} }
	y := model.Match{Value: "spiffe://m.example/ns/b/sa/y"}
	mixed := from(model.Source{Principals: []model.Principal{exact(till), ofPeer(theirs)}})
	get := model.Rule{To: []model.Operation{{Methods: []model.Match{{Value: "GET"}}}}}
	for name, c := range map[string]struct {
		policies model.Policies
		want     Admission
	}{
		"everyone": {
			model.Policies{DefaultAllow: true},
			Admission{Allowed: []model.Match{prefix("spiffe://m.example/ns/")}, Whole: true},
		},
		"nobody":                      {model.Policies{}, Admission{Whole: true}},
		"an end that is a whole name": {allow(ends("/ns/b/sa/y")), Admission{Allowed: []model.Match{y}, Whole: true}},
		"an end with the domain": {
			allow(ends("m.example/ns/b/sa/y")),
			Admission{Allowed: []model.Match{y}, Whole: true},
		},
		"an end from the namespace on": {
			allow(ends("b/sa/y")),
			Admission{Allowed: []model.Match{suffix("b/sa/y")}, Whole: true},
		},
		"an account": {
			allow(ends("/sa/y")),
			Admission{Allowed: []model.Match{suffix("/sa/y")}, Whole: true},
		},
		"an own and a peer's": {allow(mixed), Admission{Allowed: []model.Match{{Value: till}}, Whole: true}},
		"a DENY of a peer's": {
			deny(mixed),
			Admission{
				Allowed: []model.Match{prefix("spiffe://m.example/ns/")},
				Denied:  []model.Match{{Value: till}, {Value: gateway}}, Whole: true,
			},
		},
		"a DENY by the end": {
			deny(ends("/sa/y")),
			Admission{Allowed: []model.Match{prefix("spiffe://m.example/ns/")}},
		},
		"a method": {allow(get), Admission{Whole: true}},
		"a DENY of a method": {
			deny(get),
			Admission{
				Allowed: []model.Match{prefix("spiffe://m.example/ns/")},
				Denied:  []model.Match{prefix("spiffe://m.example/ns/")}, Whole: true,
			},
		},
	} {
		s := Server{TrustDomain: "m.example", Gateways: []string{gateway}}
		got := s.Admission(s.Read(c.policies))
		if !slices.Equal(got.Allowed, c.want.Allowed) || !slices.Equal(got.Denied, c.want.Denied) ||
			got.Whole != c.want.Whole {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestOnPort: what a rule with several alternatives means for one port.
func TestOnPort(t *testing.T) {
	get := model.Operation{Methods: []model.Match{{Value: "GET"}}}
	vault, other := model.Operation{Ports: []uint16{7000}}, model.Operation{Ports: []uint16{7001}}
	for name, c := range map[string]struct {
		http     bool
		policies model.Policies
		request  Request
		want     Decision
	}{
		"a method or the port": {
			true, allow(model.Rule{To: []model.Operation{get, vault}}),
			Request{},
			Allowed,
		},
		"a method or another port": {
			true, allow(model.Rule{To: []model.Operation{get, other}}),
			Request{},
			Depends,
		},
		"another port": {true, allow(model.Rule{To: []model.Operation{other}}), Request{}, Denied},
		"raw: a method or the port": {
			false, allow(model.Rule{To: []model.Operation{get, vault}}),
			Request{},
			Denied,
		},
		"raw: the port": {false, allow(model.Rule{To: []model.Operation{vault}}), Request{}, Allowed},
		"raw: a DENY of it or of another": {
			false, deny(model.Rule{To: []model.Operation{get, other}}),
			Request{},
			Denied,
		},
		"raw: a DENY of another": {false, deny(model.Rule{To: []model.Operation{other}}), Request{}, Allowed},
	} {
		s := Server{HTTP: c.http, TrustDomain: "m.example"}
		if got := s.Read(OnPort(c.policies, 7000, c.http)).Decide(c.request); got.Decision != c.want {
			t.Errorf("%s: %s, want %s", name, got.Decision, c.want)
		}
	}
}

func TestGlob(t *testing.T) {
	for pattern, c := range map[string]struct{ yes, no []string }{
		"":      {[]string{""}, []string{"a"}},
		"a":     {[]string{"a"}, []string{"", "ab", "ba"}},
		"*":     {[]string{"", "a", "ab"}, nil},
		"a*":    {[]string{"a", "ab"}, []string{"", "ba"}},
		"*a":    {[]string{"a", "ba", "aa"}, []string{"", "ab"}},
		"a*a":   {[]string{"aa", "aba"}, []string{"a", "ab"}},
		"*a*":   {[]string{"a", "bab"}, []string{"", "b"}},
		"a*b*c": {[]string{"abc", "axbxc", "abbc"}, []string{"ac", "acb", "abcd"}},
		"a**b":  {[]string{"ab", "axb"}, []string{"a", "b"}},
	} {
		for _, v := range c.yes {
			if !Glob(pattern, v) {
				t.Errorf("%q does not match %q", pattern, v)
			}
		}
		for _, v := range c.no {
			if Glob(pattern, v) {
				t.Errorf("%q matches %q", pattern, v)
			}
		}
	}
}
