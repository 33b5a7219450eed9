package envoy

import (
	"strings"

	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// A request that one of our own gateways brings in for a peer's caller: its log names that caller, and what Envoy
// answers it itself is in the words of the boundary, since it goes to the peer.

const assertedState = "isthmus.asserted"

// noteAsserted notes the caller, where there are gateways whose word is believed. It takes an expression, so that few
// requests meet it (inbound_routes.go).
func noteAsserted(gateways []string) *statevaluev3.FilterStateValue {
	return note(assertedState, "%CEL('"+callerHeader+"' in request.headers && connection.uri_san_peer_certificate in ['"+
		strings.Join(gateways, "', '")+"'] ? request.headers['"+callerHeader+"'] : '')%")
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
