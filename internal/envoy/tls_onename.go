package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	sslinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
)

// A certificate has exactly one URI SAN (X.509-SVID §2). Envoy accepts one with several if any of them matches, so
// these filters refuse it after the handshake, before any data passes.

// twoNames is the name of such a refusal.
const twoNames = "isthmus/two-names"

// oneName returns the filters to put before a chain's own. They block data from such a caller and, for servers that
// speak first, to it, over TLS.
func oneName(fc *listenerv3.FilterChain) []*listenerv3.Filter {
	if fc.Filters[len(fc.Filters)-1].Name == "http" {
		return []*listenerv3.Filter{oneNameSpeaks}
	}
	return []*listenerv3.Filter{oneNameHears, oneNameSpeaks}
}

// Envoy joins several names with a comma, which SPIFFE IDs cannot contain.
var oneNameSpeaks = newNetworkFilter(oneNameFilter, anyOf(&networkrbacv3.RBAC{
	StatPrefix: "one_name",
	Matcher: choice(valueLike(&sslinputsv3.UriSanInput{}, "[^,]*"),
		doing(&rbacv3.Action{Name: twoNames, Action: rbacv3.RBAC_ALLOW}),
		doing(&rbacv3.Action{Name: twoNames, Action: rbacv3.RBAC_DENY})),
}))

// A single name is as long as all names together. If there are several, the upstream certificate must have a name that
// no certificate has, so no server is reached.
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
					" ? '' : '" + unmatchableName + "')%",
			)},
		},
	}}),
)
