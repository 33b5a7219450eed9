package envoy

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A server that redirects builds the address from the Host that it was asked by, which behind a gateway is an inner name. The
// peer is told the path alone: it then asks again by the name that it knows (RFC 9110 §10.2.2), and learns no other.
//
// Answers pass the filters backwards: innerRedirects notes the address without the name, outerRedirects writes that down.

const redirectFilter = "redirects"

func innerRedirects(host, domain string) *hcmv3.HttpFilter {
	rewrite := &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{
		Regex: "(?i)^(?:https?:)?//(?:" + quote(host) + `|[^/?#:]*\.svc\.` + quote(domain) + `)\.?(?::[0-9]*)?/*`,
	}, Substitution: "/"}
	return httpFilter(redirectFilter, anyOf(&metadatav3.Config{ResponseRules: []*metadatav3.Config_Rule{{
		Header: "location", OnHeaderPresent: &metadatav3.Config_KeyValuePair{MetadataNamespace: hostTags, Key: "location", RegexValueRewrite: rewrite},
	}}}))
}

var outerRedirects = &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
	Header:       &corev3.HeaderValue{Key: "location", Value: "%DYNAMIC_METADATA(" + hostTags + ":location)%"},
	AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
}}}
