package envoy

import (
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"isthmus.dev/isthmus/internal/model"
)

// CGI, WSGI and similar programs do not distinguish x_role from x-role (RFC 3875 §4.1.18), and some not x.role either.
// Header names with underscores pass, since gRPC metadata uses them, unless they could be mistaken for a header that a
// policy of this port compares; such requests are refused. Spellings with other characters, which no client needs, are
// removed. Every spelling of the headers that the mesh itself sets or removes is removed, too.

const lookalikePolicy = "isthmus/header-lookalike"

// ownLookalikes removes other spellings of the headers that the mesh sets or removes.
var ownLookalikes = removedLookalikes(ownNames, "-")

var ownNames = []string{
	callerHeader, "isthmus-peer", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
}

// removedLookalikes removes spellings of names that have any character other than the usual ones in place of "-" or
// "_".
func removedLookalikes(names []string, usual string) []*mutationv3.HeaderMutation {
	return each(joined(oddSpellings(names, usual)), func(e string) *mutationv3.HeaderMutation {
		return removedMatching(regex(e))
	})
}

// oddSpellings returns expressions for those spellings.
func oddSpellings(names []string, usual string) []string {
	var spellings []string
	for _, name := range names {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			continue // no such program uses it
		}
		parts := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' })
		for i := 1; i < len(parts) && len(parts) <= maxParts; i++ {
			spellings = append(
				spellings,
				strings.Join(parts[:i], "["+usual+"]")+"[^a-z0-9"+usual+"]"+strings.Join(parts[i:], "[^a-z0-9]"),
			)
		}
	}
	return spellings
}

// maxParts limits the parts of a name whose spellings are matched by an expression; more would be too large for Envoy.
const maxParts = 16

// maxSeparators limits the separators of a name whose spellings are enumerated. If a policy compares a longer one, all
// names with underscores are refused.
const maxSeparators = 6

func manyLookalikes(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.Count(name, "-")+strings.Count(name, "_") > maxSeparators
	})
}

// refuseLookalikes adds a policy to a DENY that refuses other spellings of the names.
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

// lookalikes enumerates all other spellings of names with "-" and "_", sorted.
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
		return nil // see manyLookalikes
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

// comparedHeaders returns the names of headers that conditions compare, in lower case, sorted.
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

// policyHeaders returns the header names that policies compare.
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
