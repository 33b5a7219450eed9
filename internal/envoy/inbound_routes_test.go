package envoy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// Of the requests that any of these paths, Hosts and headers make, exactly those that hygiene lets pass, that name no
// caller and that are no late attempt may be taken by the first routes; where a path has an escape, they need not be.
func TestOrdinaryRequests(t *testing.T) {
	hygiene := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{hygienePolicy: pathHygiene, hostPolicy: hostHygiene}}
	route := ordinary([]*routev3.Route{toCluster("c")})[0]
	taken, left := 0, 0
	for _, path := range []string{"/", "/a/b?c=d&e", "/a//b", "/;", "/a;b=c", "/a%20b", "/%", "/%25", "/a?b=%00"} {
		for _, host := range []string{"web", "web.default:80", "[2001:db8::1]:80", "", "a,b", "a b", "u@a", "a%2eb", "*"} {
			for caller, named := range map[string]bool{"": false, "-": true, "spiffe://a/b": true} {
				for number, late := range map[string]bool{
					"": false, "1": false, "2": false, "3": true, "12": true, "1,3": false, "x": false,
				} {
					r := envoyRequest{
						isHTTP: true, path: path[:max(strings.IndexByte(path+"?", '?'), 1)],
						headers: map[string]string{":path": path, ":authority": host},
					}
					if caller != "" {
						r.headers[callerHeader] = strings.TrimPrefix(caller, "-")
					}
					if number != "" {
						r.headers[attemptHeader] = number
					}
					got := wholeText(route.Match.GetSafeRegex().Regex).MatchString(r.path) &&
						!slices.ContainsFunc(route.Match.Headers,
							func(h *routev3.HeaderMatcher) bool { return !headerMatches(h, r) })
					want := !enforced(hygiene, r) && !named && !late && !strings.Contains(r.path, "%")
					if got != want {
						t.Errorf("%q at %q of caller %q, attempt %q: taken %t, want %t", path, host, caller, number, got,
							want)
					}
					if got {
						taken++
					} else {
						left++
					}
				}
			}
		}
	}
	if taken != 80 || left < 1000 {
		t.Errorf("%d requests are ordinary and %d are not", taken, left)
	}
}

// The filters that an ordinary request does not meet are switched on by the routes alone, and DENY for all requests
// where some policy denies.
func TestWhereFiltersAreSwitchedOn(t *testing.T) {
	for _, f := range inboundFilters() {
		want := f.Name == denyFilter || f.Name == notesFilter
		if f.Disabled != want {
			t.Errorf("%s: disabled %t", f.Name, f.Disabled)
		}
	}
	gateways := []string{"spiffe://m.example/ns/isthmus-system/sa/federation-gateway"}
	rule := []model.Rule{{To: []model.Operation{{Methods: []model.Match{{Value: "PUT"}}}}}}
	compares := []model.Rule{{When: []model.Condition{{
		Key: "request.headers[x-role]", Matches: []model.Match{{Value: "admin"}},
	}}}}
	for _, c := range []struct {
		name     string
		ps       model.Policies
		gateways []string
		all      string
		closer   string
	}{
		{"none", model.Policies{}, nil, "allow", "deny notes"},
		{"with gateways", model.Policies{}, gateways, "allow", "deny notes"},
		{
			"an ALLOW",
			model.Policies{Allow: []*model.Policy{{Action: model.Allow, Rules: rule}}},
			nil,
			"allow", "deny notes",
		},
		{
			"a DENY",
			model.Policies{Deny: []*model.Policy{{Action: model.Deny, Rules: rule}}},
			gateways,
			"allow deny", "notes",
		},
		{ // x_role is refused
			"an ALLOW that compares a header", model.Policies{
				Allow: []*model.Policy{{Action: model.Allow, Rules: compares}},
			}, nil, "allow deny fold", "notes",
		},
	} {
		in := model.Inbound{Port: 80, Protocol: model.HTTP, Policies: c.ps}
		rc := inboundRoutes("web:80", "web:80", in, authz.Server{
			HTTP: true, TrustDomain: "m.example", Gateways: c.gateways,
		})
		if got := strings.Join(slices.Sorted(maps.Keys(rc.TypedPerFilterConfig)), " "); got != c.all {
			t.Errorf("%s: all requests meet %s", c.name, got)
		}
		for i, r := range rc.VirtualHosts[0].Routes {
			want := ""
			if i >= 2 {
				want = c.closer
			}
			got := strings.Join(slices.Sorted(maps.Keys(r.TypedPerFilterConfig)), " ")
			if got != want || (len(r.Match.Headers) == 0) != (i >= 2) {
				t.Errorf("%s: those of route %d meet %q as well, want %q", c.name, i, got, want)
			}
		}
	}
}
