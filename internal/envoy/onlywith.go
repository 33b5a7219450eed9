package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	actionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

// Scripts and expressions cost each request some microseconds, and most requests do not need them. These matchers skip
// the filter for such requests.

// forRequestsWith applies a filter only to requests with one of these headers, at least two.
func forRequestsWith(f *hcmv3.HttpFilter, headers ...string) *hcmv3.HttpFilter {
	return onlyWith(f, each(headers, func(name string) proto.Message {
		return &matcherv3.HttpRequestHeaderMatchInput{HeaderName: name}
	}))
}

// forAnswersWith applies a filter only to responses with one of these headers, at least two.
func forAnswersWith(f *hcmv3.HttpFilter, headers ...string) *hcmv3.HttpFilter {
	return onlyWith(f, each(headers, func(name string) proto.Message {
		return &matcherv3.HttpResponseHeaderMatchInput{HeaderName: name}
	}))
}

func onlyWith(f *hcmv3.HttpFilter, inputs []proto.Message) *hcmv3.HttpFilter {
	present := each(inputs, func(input proto.Message) *xdsmatcherv3.Matcher_MatcherList_Predicate {
		return &xdsmatcherv3.Matcher_MatcherList_Predicate{
			MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
				SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
					Input: &xdscorev3.TypedExtensionConfig{Name: "header", TypedConfig: anyOf(input)},
					Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
						ValueMatch: xdsRegex(`(?s)\C*`), // any value; an absent header does not match
					},
				},
			},
		}
	})
	none := &xdsmatcherv3.Matcher_MatcherList_Predicate{
		MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher{
			NotMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate{
				MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher{
					OrMatcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_PredicateList{Predicate: present},
				},
			},
		},
	}
	skip := &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: &xdscorev3.TypedExtensionConfig{Name: "skip", TypedConfig: anyOf(&actionv3.SkipFilter{})},
	}}
	return newHTTPFilter(f.Name, anyOf(&matchingv3.ExtensionWithMatcher{
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: f.Name, TypedConfig: f.GetTypedConfig()},
		XdsMatcher: &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherList_{
			MatcherList: &xdsmatcherv3.Matcher_MatcherList{
				Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{Predicate: none, OnMatch: skip}},
			},
		}},
	}))
}

func xdsRegex(expression string) *xdsmatcherv3.StringMatcher {
	return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
		SafeRegex: &xdsmatcherv3.RegexMatcher{
			EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}},
			Regex:      expression,
		},
	}}
}
