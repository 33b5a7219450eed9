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

// An upgrade turns a request into a bidirectional byte stream after the server has agreed (101). Policies check the
// initial request; an extended CONNECT (RFC 8441) looks like the same GET to them. Envoy does not interpret the stream,
// and forwards none of it before the server has agreed, so that no second request can hide behind the first.
//
// Envoy requires each upgrade protocol by name, but programs use many (websocket, SPDY/3.1, tcp, ...). So every
// connection manager renames an upgrade before filters are selected, and the first filter restores the name.

const (
	anyUpgrade    = "isthmus"         // every upgrade's temporary name
	upgradeHeader = "isthmus-upgrade" // holds the real protocol
)

// renameUpgrade runs before Envoy reads the protocol.
var renameUpgrade = []*mutationv3.HeaderMutation{
	removeHeader("http2-settings"), // part of an offer that is ignored
	removeHeader(upgradeHeader),
	{Action: &mutationv3.HeaderMutation_Append{Append: overwrite(upgradeHeader, "%REQ(upgrade)%")}},
	{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: "upgrade", Value: anyUpgrade},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
	}}},
}

// restoreUpgrade runs before any filter that reads headers.
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

// upgrades configures the filters of upgrade requests. They start with restoreUpgrade.
func upgrades() []*hcmv3.HttpConnectionManager_UpgradeConfig {
	return []*hcmv3.HttpConnectionManager_UpgradeConfig{{
		UpgradeType: anyUpgrade, Filters: []*hcmv3.HttpFilter{restoreUpgrade, upgradeRules},
	}}
}

// ignoredUpgrades are upgrades to another version of HTTP or its transport, which clients offer with ordinary requests.
// They are ignored (RFC 9110 §7.8): after such an upgrade, policies would not see the requests.
var ignoredUpgrades = []*matcherv3.StringMatcher{regex(`(?i)(?:h2c?|http|tls)(?:/\C*)?`)}

const (
	offerPolicy = "isthmus/upgrade-to-http"
	bodyPolicy  = "isthmus/upgrade-with-body"
)

// upgradeRules refuse such an upgrade when it arrives as an extended CONNECT, and upgrades with a body: no data passes
// before the server agrees, so a server that waits for the body would wait forever.
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

// upgradeReplies say why an upgrade is refused, or a CONNECT, which requests a tunnel to an address of the client's
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
