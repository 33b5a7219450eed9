package envoy

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	sethttpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/model"
)

// A request that one of our own gateways brings in for a peer's caller: its log names that caller, and what Envoy
// answers it itself is in the words of the boundary, since it goes to the peer.

const assertedState = "isthmus.asserted"

// assertedCallers note the caller before anything refuses the request. They do so for the routes alone that say what to
// note: so no other request has the filter, and a gateway that comes or goes drains no connection.
func assertedCallers() *hcmv3.HttpFilter {
	f := newHTTPFilter(assertedFilter, anyOf(&sethttpstatev3.Config{}))
	f.Disabled = true
	return f
}

// assertingRoutes are the ones of these for requests that name a caller, where there are gateways whose word on it is
// believed. No other request pays for the question whether it is one of theirs, which takes an expression.
func assertingRoutes(gateways []string, routes []*routev3.Route) []*routev3.Route {
	if len(gateways) == 0 {
		return nil
	}
	note := anyOf(&sethttpstatev3.Config{OnRequestHeaders: []*statevaluev3.FilterStateValue{{
		Key: &statevaluev3.FilterStateValue_ObjectKey{
			ObjectKey: assertedState,
		}, FactoryKey: stringState, SkipIfEmpty: true,
		Value: &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat(
			"%CEL(connection.uri_san_peer_certificate in ['" + strings.Join(gateways, "', '") + "']" +
				" ? request.headers['" + callerHeader + "'] : '')%",
		)},
	}}})
	for _, r := range routes {
		r.Match.Headers = append(r.Match.Headers, header(callerHeader, model.Match{Kind: model.Present}))
		r.TypedPerFilterConfig = map[string]*anypb.Any{assertedFilter: note}
	}
	return routes
}

// assertedTag names the caller in the log, "-" where there is none.
var assertedTag = tag{name: "asserted", value: stateOf(assertedState)}

// wordsOfBoundary has the boundary say to peers what Envoy says in its own name, who, to callers of the mesh. What no
// mapper has words for is told by its status alone.
func wordsOfBoundary(m *hcmv3.HttpConnectionManager, who, boundary string) {
	asserted := when(`size(filter_state["` + assertedState + `"]) > 0`)
	var out []*hcmv3.ResponseMapper
	for _, r := range m.LocalReplyConfig.Mappers {
		text := strings.ReplaceAll(
			r.BodyFormatOverride.GetTextFormatSource().GetInlineString(),
			" %LOCAL_REPLY_BODY%",
			"",
		)
		out = append(out, &hcmv3.ResponseMapper{
			Filter: allOfFilters(asserted, r.Filter), StatusCode: r.StatusCode, HeadersToAdd: r.HeadersToAdd,
			BodyFormatOverride: bodyFormat(strings.Replace(text, "isthmus: "+who, "isthmus: "+boundary, 1)),
		})
	}
	out = append(out, &hcmv3.ResponseMapper{
		Filter: asserted, BodyFormatOverride: bodyFormat("isthmus: " + boundary + ": %RESPONSE_CODE%\n"),
	})
	m.LocalReplyConfig.Mappers = append(out, m.LocalReplyConfig.Mappers...)
}
