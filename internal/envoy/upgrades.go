package envoy

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// An upgrade turns a request into a stream of bytes both ways once the server has agreed (101). Policies judge the
// request that opens it; an extended CONNECT (RFC 8441) is the same GET to them. Envoy reads nothing of the stream, and
// lets nothing of it through before the server has agreed, so that no second request can hide behind the first.
//
// Envoy wants to know each protocol by its name. Programs use many (websocket, SPDY/3.1, tcp, ...), so that every
// connection manager gives the upgrade a name of its own while it chooses the filters, and the first of these gives the
// true one back.

const (
	anyUpgrade    = "isthmus"         // what every upgrade is called between the two
	upgradeHeader = "isthmus-upgrade" // which protocol it really is
)

// renameUpgrade runs before Envoy looks for the protocol.
var renameUpgrade = []*mutationv3.HeaderMutation{
	removeHeader("http2-settings"), // of an offer that is ignored
	removeHeader(upgradeHeader),
	{Action: &mutationv3.HeaderMutation_Append{Append: overwrite(upgradeHeader, "%REQ(upgrade)%")}},
	{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: "upgrade", Value: anyUpgrade},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
	}}},
}

// restoreUpgrade runs before any filter that looks at headers.
var restoreUpgrade = newHTTPFilter(
	upgradeFilter,
	anyOf(&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: []*mutationv3.HeaderMutation{
			{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: "upgrade", Value: "%REQ(" + upgradeHeader + ")%"},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
			}}},
			removeHeader(upgradeHeader),
		},
	}}),
)

func removeHeader(name string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}}
}

// upgrades begin the filters of a request that asks for one.
func upgrades() []*hcmv3.HttpConnectionManager_UpgradeConfig {
	return []*hcmv3.HttpConnectionManager_UpgradeConfig{{
		UpgradeType: anyUpgrade, Filters: []*hcmv3.HttpFilter{restoreUpgrade, upgradeRules},
	}}
}

// mereOffers are upgrades to another form of HTTP or of its transport, which clients offer beside an ordinary request:
// ignored (RFC 9110 §7.8). Behind one of these no policy would see the requests any more.
var mereOffers = []*matcherv3.StringMatcher{regex(`(?i)(?:h2c?|http|tls)(?:/\C*)?`)}

const (
	offerPolicy = "isthmus/upgrade-to-http"
	bodyPolicy  = "isthmus/upgrade-with-body"
)

// upgradeRules refuse what mereOffers cannot take away, since it comes as extended CONNECT, and an upgrade with a body:
// as no byte passes before the server agrees, a server that waits for the body would wait for ever.
var upgradeRules = newHTTPFilter(upgradeRulesFilter, anyOf(&httprbacv3.RBAC{Rules: &rbacv3.RBAC{
	Action: rbacv3.RBAC_DENY,
	Policies: map[string]*rbacv3.Policy{
		offerPolicy: {Principals: []*rbacv3.Principal{anyone()}, Permissions: []*rbacv3.Permission{
			headerPermission(
				&routev3.HeaderMatcher{Name: "upgrade", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
					StringMatch: regex(`(?i)(?:\C*[,\s])?(?:h2c?|http|tls)(?:[/,;\s]\C*)?`),
				}},
			),
		}},
		bodyPolicy: {Principals: []*rbacv3.Principal{anyone()}, Permissions: []*rbacv3.Permission{
			headerPermission(&routev3.HeaderMatcher{
				Name: "content-length", InvertMatch: true,
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly("0")[0]},
			}),
		}},
	},
}}))

// upgradeReplies say why an upgrade is refused, or a CONNECT, which asks for a tunnel to an address of the client's
// choice.
var upgradeReplies = []reply{
	{
		when:   when(`request.method == "CONNECT"`),
		status: 405,
		text: " opens no tunnels: CONNECT is for proxies; an extended CONNECT " +
			"(RFC 8441) opens a WebSocket",
	},
	{
		when:   detailed("[" + offerPolicy + "]"),
		status: 400,
		text: " does not switch to another form of HTTP or TLS: policies would see " +
			"no further request",
	},
	{
		when:   detailed("[" + bodyPolicy + "]"),
		status: 400,
		text:   " takes no body with an upgrade: send it once the server has agreed",
	},
}
