package envoy

import (
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// httpOrder lists the HTTP filters of all connection managers, in the order in which requests pass them; responses pass
// in reverse order. "Inbound" is in front of a workload's program; "ingress" and "egress" are a gateway's two sides.
// Outbound, in front of a calling program, there are only the upgrade filters and the router, since the server enforces
// policy.
var httpOrder = []string{
	// Records what Envoy's local replies depend on, before anything refuses: how often the request was started and,
	// inbound, the asserted caller. Inbound, ingress, egress.
	notesFilter,
	// Restores the name of an upgrade before anything reads it, and refuses upgrades that would hide requests.
	// Everywhere.
	upgradeFilter, upgradeRulesFilter,
	// Normalises headers for policies, which see nothing else. Inbound; ingress, egress.
	foldFilter, boundaryFilter,
	// Removes request IDs that are not short and plain. Ingress, egress.
	requestIDFilter,
	// Policies, evaluated as in Istio. Inbound, ingress, egress.
	denyFilter, allowFilter,
	// Rewrites internal names. As a script it runs only for what policies admit. Ingress, egress.
	namesFilter,
	// Answers whether an export has a ready endpoint, only on health check chains. anonymousFilter removes what
	// healthFilter adds to the response.
	anonymousFilter, healthFilter,
	// Forwards the request. Everywhere.
	routerFilter,
}

const (
	notesFilter        = "notes"
	upgradeFilter      = "upgrade"
	upgradeRulesFilter = "upgrades"
	foldFilter         = "fold"
	boundaryFilter     = "boundary"
	requestIDFilter    = "request_id"
	denyFilter         = "deny"
	allowFilter        = "allow"
	namesFilter        = "names"
	anonymousFilter    = "anonymous"
	healthFilter       = "health"
	routerFilter       = "router"
)

// addHTTPFilters adds filters to a manager, in their order, for plain requests and upgrades.
func addHTTPFilters(m *hcmv3.HttpConnectionManager, filters ...*hcmv3.HttpFilter) {
	m.HttpFilters = inOrder(httpOrder, slices.Concat(m.HttpFilters, filters))
	for _, u := range m.UpgradeConfigs {
		u.Filters = inOrder(httpOrder, slices.Concat(u.Filters, filters))
	}
}

// networkOrder lists the network filters of all chains, in the order in which data passes them.
var networkOrder = []string{
	// Limits the connections of a chain before anything costs something. A gateway's chains.
	connectionsFilter,
	// Refuses a certificate with two identities before any data passes in either direction. Behind TLS.
	oneNameHearsFilter, oneNameFilter,
	// Policies of raw TCP that the handshake cannot decide, named like their HTTP counterparts. Inbound.
	denyFilter, allowFilter,
	// One of these ends the chain.
	tcpFilter, httpFilter, closeFilter,
}

const (
	connectionsFilter  = "connections"
	oneNameHearsFilter = "one_name_hears"
	oneNameFilter      = "one_name"
	tcpFilter          = "tcp"
	httpFilter         = "http"
	closeFilter        = "close"
)

// addNetworkFilters adds filters to a chain, in their order.
func addNetworkFilters(fc *listenerv3.FilterChain, filters ...*listenerv3.Filter) {
	fc.Filters = inOrder(networkOrder, slices.Concat(fc.Filters, filters))
}

// inOrder sorts filters by the position of their names in order. It panics for a name that is not there: a filter
// without a place must not run before the policies, unnoticed.
func inOrder[F interface{ GetName() string }](order []string, filters []F) []F {
	place := func(f F) int {
		name, _, _ := strings.Cut(f.GetName(), "/") // the names of shared filters have a suffix
		n := slices.Index(order, name)
		if n < 0 {
			panic("the filter " + name + " has no place in the order of filters")
		}
		return n
	}
	slices.SortStableFunc(filters, func(a, b F) int { return place(a) - place(b) })
	return filters
}

func newHTTPFilter(name string, config *anypb.Any) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}
}

// switchedOn returns a filter that only sees requests whose route configures it.
func switchedOn(f *hcmv3.HttpFilter) *hcmv3.HttpFilter {
	f.Disabled = true
	return f
}

// notes writes into a request's filter state.
func notes(values ...*statevaluev3.FilterStateValue) *setstatev3.Config {
	return &setstatev3.Config{OnRequestHeaders: values}
}

// note writes a text, unless it is empty.
func note(key, text string) *statevaluev3.FilterStateValue {
	return &statevaluev3.FilterStateValue{
		Key: &statevaluev3.FilterStateValue_ObjectKey{ObjectKey: key}, FactoryKey: stringState, SkipIfEmpty: true,
		Value: &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat(text)},
	}
}

func newNetworkFilter(name string, config *anypb.Any) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}
}
