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

// A script or an expression costs each request some microseconds, and most have nothing for it to look at. Those pass
// by it.

// forRequestsWith has a filter see only requests that have one of two or more headers.
func forRequestsWith(f *hcmv3.HttpFilter, headers ...string) *hcmv3.HttpFilter {
	return onlyWith(f, each(headers, func(name string) proto.Message {
		return &matcherv3.HttpRequestHeaderMatchInput{HeaderName: name}
	}))
}

// forAnswersWith has a filter see only answers that have one of two or more headers.
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
						ValueMatch: xdsRegex(`(?s)\C*`), // any value; of a header that is not there there is none
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
