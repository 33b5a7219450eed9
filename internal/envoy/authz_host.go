package envoy

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// The Host is the client's to choose, as in Istio: the destination of a request is clear by its address, and between
// meshes by the name in the handshake. So every name is routed alike, and the program sees what the client sent, port
// included. What two readers could take for two different hosts is refused by hostHygiene; what is left names one host,
// in a few spellings, and policies see through those.

// everyHost are the domains of the one virtual host where the destination is clear without it.
var everyHost = []string{"*"}

const hostPolicy = "isthmus/host-hygiene"

// hostHygiene refuses a Host that is no name or address with an optional port: two of them (which Envoy joins by a
// comma), user information, spaces, escapes, dots in a row. An empty one is legal (RFC 9110 §7.2).
var hostHygiene = &rbacv3.Policy{
	Principals: []*rbacv3.Principal{anyone()},
	Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_NotRule{
		NotRule: headerPermission(authorityMatcher(plainHost)),
	}}},
}

// plainHost is what hostHygiene lets pass.
const plainHost = `(?:(?:[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?)?`

func authorityMatcher(expression string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: ":authority", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex(expression)},
	}
}
