package envoy

import (
	"regexp"
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/model"
)

// Envoy's RBAC looks at each line of a repeated header by itself: an ALLOW would be met by one good line beside a bad
// one, which the server may read. Folded into one (RFC 9110 §5.3), both are seen.

// inboundFilters are those of a server: what they do stands in the route configuration.
func inboundFilters() []*hcmv3.HttpFilter {
	policy := policyFilters()
	switchedOn(policy[0])
	return append(policy,
		switchedOn(newHTTPFilter(notesFilter, anyOf(notes()))),
		newHTTPFilter(foldFilter, anyOf(&headermutationv3.HeaderMutation{
			Mutations: &headermutationv3.Mutations{
				RequestMutations:         slices.Concat([]*mutationv3.HeaderMutation{betweenEnvoys}, ownLookalikes),
				RequestTrailersMutations: trailersRemoved,
			},
		})),
	)
}

// foldConfig folds the headers that some rule compares as a whole: those that an ALLOW asks for, and those that a DENY
// excepts. It removes trailers that are named, or look, like what any rule asks for: no policy sees trailers, and some
// servers take them for headers. It is nil when there is none.
func foldConfig(ps model.Policies) *anypb.Any {
	names := policyHeaders(ps)
	if len(names) == 0 {
		return nil
	}
	m := &headermutationv3.Mutations{
		RequestMutations: removedLookalikes(names, "_-"),
		RequestTrailersMutations: append(
			each(slices.Concat(names, lookalikes(names)), removed),
			removedLookalikes(names, "_-")...),
	}
	excepted := slices.DeleteFunc(
		conditions(ps.Deny...),
		func(w model.Condition) bool { return len(w.NotMatches) == 0 },
	)
	for _, name := range comparedHeaders(slices.Concat(conditions(ps.Allow...), excepted)) {
		if plainName.MatchString(name) {
			m.RequestMutations = append(m.RequestMutations, folded(name, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS))
		}
	}
	return anyOf(&headermutationv3.HeaderMutationPerRoute{Mutations: m})
}

func folded(name string, action corev3.HeaderValueOption_HeaderAppendAction) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: "%CEL(request.headers['" + name + "'])%"}, AppendAction: action,
	}}}
}

// plainName is a header name that can stand in an expression as it is.
var plainName = regexp.MustCompile(`^[a-z0-9!#$&*+.^_|~-]+$`)
