package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

// The xDS matchers (xds.type.matcher.v3) that filters and routes take. They see a repeated header as one value, joined
// by commas. RBAC and the header matchers of a route compare each line by itself.

type predicate = xdsmatcherv3.Matcher_MatcherList_Predicate

// valueLike holds if there is a value and the expression matches all of it.
func valueLike(input proto.Message, expression string) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: &xdscorev3.TypedExtensionConfig{Name: "input", TypedConfig: anyOf(input)},
			Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
				ValueMatch: &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
					SafeRegex: &xdsmatcherv3.RegexMatcher{
						EngineType: re2, Regex: expression,
					},
				}},
			},
		},
	}}
}

var re2 = &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}}

// anyValue matches every value; an absent header does not match.
const anyValue = `(?s)\C*`

// requestHeader is the input for a request header.
func requestHeader(name string) proto.Message {
	return &matcherv3.HttpRequestHeaderMatchInput{HeaderName: name}
}

// allOfPredicates and noneOfPredicates take at least two predicates.
func allOfPredicates(list ...*predicate) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher{
		AndMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}}
}

func noneOfPredicates(list ...*predicate) *predicate {
	return notPredicate(&predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher{
		OrMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: list},
	}})
}

func notPredicate(p *predicate) *predicate {
	return &predicate{MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: p}}
}

// choice takes one action if the predicate holds, otherwise the other one, if any.
func choice(p *predicate, then, otherwise *xdsmatcherv3.Matcher_OnMatch) *xdsmatcherv3.Matcher {
	return &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
			Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{Predicate: p, OnMatch: then}},
		}},
		OnNoMatch: otherwise,
	}
}

func doing(action proto.Message) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: &xdscorev3.TypedExtensionConfig{Name: "action", TypedConfig: anyOf(action)},
	}}
}
