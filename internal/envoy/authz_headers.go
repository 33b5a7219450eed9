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

// Envoy's RBAC compares each line of a repeated header by itself. One good line would satisfy an ALLOW beside a bad
// line, which the server may use. Folding the lines into one (RFC 9110 §5.3) lets RBAC see both.

// inboundFilters returns the filters of a server. Their configuration is in the route configuration.
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

// foldConfig folds the headers that a rule compares as a whole in an ALLOW or excepts in a DENY. It removes trailers
// with the names of compared headers, or similar ones: policies do not see trailers, and some servers merge them into
// the headers. It returns nil if there is nothing to do.
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

// plainName matches header names that need no quoting in an expression.
var plainName = regexp.MustCompile(`^[a-z0-9!#$&*+.^_|~-]+$`)
