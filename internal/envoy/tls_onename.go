package envoy

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	sslinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
)

// A certificate says whose it is by one URI name (X.509-SVID §2). Envoy admits one with several if any of them fits, so
// that these filters refuse it afterwards, before a byte of what is behind them comes back.

// twoNames is what such a refusal is called.
const twoNames = "isthmus/two-names"

// oneName are the filters in front of those that a chain has. Nothing that such a caller says passes; and where the
// server speaks first, over TLS, it is not listened to.
func oneName(fc *listenerv3.FilterChain) []*listenerv3.Filter {
	if fc.Filters[len(fc.Filters)-1].Name == "http" {
		return []*listenerv3.Filter{oneNameSpeaks}
	}
	return []*listenerv3.Filter{oneNameHears, oneNameSpeaks}
}

// Envoy joins several names by a comma, which is no character of a SPIFFE ID.
var oneNameSpeaks = newNetworkFilter(
	oneNameFilter,
	anyOf(&networkrbacv3.RBAC{StatPrefix: "one_name", Matcher: &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
			Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{{
				Predicate: &xdsmatcherv3.Matcher_MatcherList_Predicate{
					MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
						SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
							Input: &xdscorev3.TypedExtensionConfig{
								Name:        "uri_san",
								TypedConfig: anyOf(&sslinputsv3.UriSanInput{}),
							},
							Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
								ValueMatch: &xdsmatcherv3.StringMatcher{
									MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{
										SafeRegex: &xdsmatcherv3.RegexMatcher{
											EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{
												GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{},
											},
											Regex: "[^,]*",
										},
									},
								},
							},
						},
					},
				},
				OnMatch: rbacAction(rbacv3.RBAC_ALLOW),
			}},
		}},
		OnNoMatch: rbacAction(rbacv3.RBAC_DENY),
	}}),
)

func rbacAction(a rbacv3.RBAC_Action) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{
		OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
			Name: "action", TypedConfig: anyOf(&rbacv3.Action{Name: twoNames, Action: a}),
		}},
	}
}

// The first name is as long as all of them where it is the only one. Where it is not, a server is asked for that there
// is not.
var oneNameHears = newNetworkFilter(
	oneNameHearsFilter,
	anyOf(&setstatev3.Config{OnDownstreamTlsHandshake: []*statevaluev3.FilterStateValue{
		{
			Key: &statevaluev3.FilterStateValue_ObjectKey{ObjectKey: "isthmus.names"}, FactoryKey: stringState,
			Value: &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat("%DOWNSTREAM_PEER_URI_SAN%")},
		},
		{
			Key: &statevaluev3.FilterStateValue_ObjectKey{
				ObjectKey: "envoy.network.upstream_subject_alt_names",
			}, SkipIfEmpty: true,
			Value: &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat(
				"%CEL(size(filter_state['isthmus.names']) == size(connection.uri_san_peer_certificate)" +
					" ? '' : '" + nobodysName + "')%",
			)},
		},
	}}),
)
