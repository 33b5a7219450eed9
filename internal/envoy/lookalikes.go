package envoy

import (
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"isthmus.dev/isthmus/internal/model"
)

// Programs behind CGI, WSGI and the like read x_role and x-role as one (RFC 3875 §4.1.18). Header names with underscores pass,
// as gRPC's metadata has them, but not those that could stand for a name that a policy of this port compares: such a request is
// refused. Headers that the mesh sets or removes, whatever the client says, are removed in every spelling.

const lookalikePolicy = "isthmus/header-lookalike"

// ownLookalikes are the other spellings of what the mesh sets or removes.
var ownLookalikes = lookalikes([]string{
	callerHeader, "isthmus-peer", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
})

// maxSeparators of a header name whose every spelling is looked for. Where a longer one is compared, no underscore passes.
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
			return headerPermission(header(name, model.Match{Kind: model.Present}, false))
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

// comparedHeaders are the names that policies compare, lower case.
func comparedHeaders(ps model.Policies) []string {
	var names []string
	for _, p := range slices.Concat(ps.Deny, ps.Allow) {
		for _, r := range p.Rules {
			for _, w := range r.When {
				if name, ok := strings.CutPrefix(w.Key, "request.headers["); ok {
					names = append(names, strings.ToLower(strings.TrimSuffix(name, "]")))
				}
			}
		}
	}
	return names
}
