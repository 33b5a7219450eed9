package envoy

import (
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"isthmus.dev/isthmus/internal/model"
)

// Programs behind CGI, WSGI and the like read x_role and x-role as one (RFC 3875 §4.1.18), and some read x.role so too.
// Header names with underscores pass, as gRPC's metadata has them, but not those that could stand for a name that a
// policy of this port compares: such a request is refused. With other characters in their place, which no client means,
// they are removed; and so is in every spelling what the mesh sets or removes, whatever the client says.

const lookalikePolicy = "isthmus/header-lookalike"

// ownLookalikes remove the other spellings of what the mesh sets or removes.
var ownLookalikes = removedLookalikes([]string{
	callerHeader, "isthmus-peer", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
}, "-")

// removedLookalikes remove the other spellings of some names that have a character beside the usual ones in the place
// of "-" or "_".
func removedLookalikes(names []string, usual string) []*mutationv3.HeaderMutation {
	var spellings []string
	for _, name := range names {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			continue // no such program knows it
		}
		parts := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' })
		for i := 1; i < len(parts) && len(parts) <= maxParts; i++ {
			spellings = append(
				spellings,
				strings.Join(parts[:i], "["+usual+"]")+"[^a-z0-9"+usual+"]"+strings.Join(parts[i:], "[^a-z0-9]"),
			)
		}
	}
	return each(joined(spellings), func(e string) *mutationv3.HeaderMutation { return removedMatching(regex(e)) })
}

// maxParts of a name of which such spellings are looked for; an expression for more would be too large for Envoy.
const maxParts = 16

// maxSeparators of a header name whose every spelling is looked for. Where a longer one is compared, no underscore
// passes.
const maxSeparators = 6

func manyLookalikes(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.Count(name, "-")+strings.Count(name, "_") > maxSeparators
	})
}

// refuseLookalikes adds to a DENY that refuses what could stand for one of the names.
func refuseLookalikes(deny *rbacv3.RBAC, names []string) *rbacv3.RBAC {
	others := lookalikes(names)
	if len(others) == 0 {
		return deny
	}
	if deny == nil {
		deny = &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}}
	}
	deny.Policies[lookalikePolicy] = &rbacv3.Policy{
		Principals: []*rbacv3.Principal{anyone()},
		Permissions: []*rbacv3.Permission{orPermissions(each(others, func(name string) *rbacv3.Permission {
			return headerPermission(header(name, model.Match{Kind: model.Present}))
		}))},
	}
	return deny
}

// lookalikes are all other spellings of some names with "-" and "_", sorted.
func lookalikes(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, spellings(strings.ToLower(name))...)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(name string) bool { return slices.Contains(names, name) })
}

func spellings(name string) []string {
	parts := strings.Split(strings.ReplaceAll(name, "_", "-"), "-")
	if len(parts)-1 > maxSeparators {
		return nil // manyLookalikes
	}
	out := parts[:1]
	for _, part := range parts[1:] {
		var longer []string
		for _, begin := range out {
			longer = append(longer, begin+"-"+part, begin+"_"+part)
		}
		out = longer
	}
	return out
}

// comparedHeaders are the names of the headers that conditions compare, lower case, sorted.
func comparedHeaders(conditions []model.Condition) []string {
	var names []string
	for _, w := range conditions {
		if name, ok := strings.CutPrefix(w.Key, "request.headers["); ok {
			names = append(names, strings.ToLower(strings.TrimSuffix(name, "]")))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// policyHeaders are the names that policies compare.
func policyHeaders(ps model.Policies) []string {
	return comparedHeaders(slices.Concat(conditions(ps.Deny...), conditions(ps.Allow...)))
}

func conditions(policies ...*model.Policy) []model.Condition {
	var out []model.Condition
	for _, p := range policies {
		for _, r := range p.Rules {
			out = append(out, r.When...)
		}
	}
	return out
}
