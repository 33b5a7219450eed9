package envoy

import (
	"regexp"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// holds matches as Envoy does: the whole value, in the same syntax.
func holds(t *testing.T, p *rbacv3.Permission, host string) bool {
	t.Helper()
	return regexp.MustCompile("^(?:" + p.GetHeader().GetStringMatch().GetSafeRegex().GetRegex() + ")$").
		MatchString(host)
}

func TestHostsOfPolicies(t *testing.T) {
	exact := permission(authz.Operation(model.Operation{Hosts: []model.Match{{Value: "web.default"}}}))
	suffix := permission(authz.Operation(model.Operation{Hosts: []model.Match{{
		Kind:  model.Suffix,
		Value: ".example",
	}}}))
	for host, want := range map[string][2]bool{
		"web.default": {true, false}, "WEB.Default": {true, false}, "web.default.": {true, false},
		"web.default:80":    {true, false},
		"web.default.:8090": {true, false}, "web.default:": {true, false},
		"web-default": {}, "xweb.default": {}, "web.default.svc": {}, "web.default:80x": {}, "": {},
		"a.example": {false, true}, "A.EXAMPLE.:1": {false, true}, "example": {}, "a.example.org": {},
	} {
		if got := [2]bool{holds(t, exact, host), holds(t, suffix, host)}; got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestHostHygiene(t *testing.T) {
	plain := hostHygiene.Permissions[0].GetNotRule()
	for host, want := range map[string]bool{
		"": true, "web": true, "Web.Default.svc.cluster.local.": true, "my_service:8090": true, "192.0.2.1": true,
		"192.0.2.1:80":  true,
		"[2001:db8::1]": true, "[::ffff:192.0.2.1]:443": true, "xn--caf-dma.example": true, "a~b": true, "web:": true,
		"a,b": false, "a b": false, " a": false, "u@a": false, "a%2eb": false, "a/b": false, "a\\b": false,
		"a:b": false, "a:1:2": false,
		"2001:db8::1": false, "[a": false, "a]": false, "[::1%25eth0]": false, "a?b": false, "a#b": false,
		"a\tb": false, "\u212a": false, "a\x00": false,
		"*": false, ":80": false, "a..": false, "a..b": false, ".a": false, ".": false,
	} {
		if got := holds(t, plain, host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
