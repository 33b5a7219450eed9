package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	actionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/matcher/action/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// forAnswersWith applies a filter only to responses with one of these headers, at least two. A script costs each
// response some microseconds, and most responses do not need it.
func forAnswersWith(f *hcmv3.HttpFilter, headers ...string) *hcmv3.HttpFilter {
	none := noneOfPredicates(each(headers, func(name string) *predicate {
		return valueLike(&matcherv3.HttpResponseHeaderMatchInput{HeaderName: name}, anyValue)
	})...)
	return newHTTPFilter(f.Name, anyOf(&matchingv3.ExtensionWithMatcher{
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: f.Name, TypedConfig: f.GetTypedConfig()},
		XdsMatcher:      choice(none, doing(&actionv3.SkipFilter{}), nil),
	}))
}
