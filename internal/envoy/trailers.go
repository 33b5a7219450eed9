package envoy

import (
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// trailersRemoved are request trailers with the meaning of headers or that clients must not send. Policy decides before
// trailers arrive, and some servers merge them into the headers.
var trailersRemoved = slices.Concat(
	ownLookalikes,
	each([]string{"isthmus-", "x-envoy-", "x-forwarded-"}, removedPrefix),
	each(append([]string{
		"forwarded", "via", "x-real-ip", "x-request-id",
		// RFC 9110 §6.5.1: framing, routing, authentication, controls, content format.
		"authorization", "connection", "content-encoding", "content-length", "content-range", "content-type",
		"cookie", "expect",
		"host", "proxy-authorization", "range", "te", "trailer", "transfer-encoding", "upgrade",
	}, without(overrideHeaders, "isthmus-peer", callerHeader)...), removed),
)

func removed(name string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
}

func removedPrefix(prefix string) *mutationv3.HeaderMutation {
	return removedMatching(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
}

func removedMatching(name *matcherv3.StringMatcher) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: name},
	}}
}
