package envoy

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// As in Istio, the client may send any Host. The destination of a request is determined by its address, and between
// meshes by the server name of the handshake. So all hosts are routed alike, and the program sees the Host as sent,
// including a port. hostHygiene refuses values that two servers could read as different hosts. What is left denotes one
// host in a few spellings, which policies treat as equal.

// everyHost are the domains of a virtual host whose requests are not distinguished by Host.
var everyHost = []string{"*"}

const hostPolicy = "isthmus/host-hygiene"

// hostHygiene refuses a Host that is not a name or address with an optional port: two values (which Envoy joins with a
// comma), user information, spaces, escapes, consecutive dots. An empty Host is valid (RFC 9110 §7.2).
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
