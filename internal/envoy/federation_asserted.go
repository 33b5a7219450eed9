package envoy

import (
	"strings"

	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// assertedState is set for a request that one of our gateways carries for a peer's caller. The log names that caller,
// and local replies use the boundary's wording, since they go to the peer.

const assertedState = "isthmus.asserted"

// noteAsserted records the asserted caller, if the mesh has gateways that may assert one. It takes an expression, so
// only few requests reach it (inbound_routes.go).
func noteAsserted(gateways []string) *statevaluev3.FilterStateValue {
	return note(assertedState, "%CEL('"+callerHeader+"' in request.headers && connection.uri_san_peer_certificate in ['"+
		strings.Join(gateways, "', '")+"'] ? request.headers['"+callerHeader+"'] : '')%")
}

// assertedTag names the asserted caller in the log, or "-".
var assertedTag = tag{name: "asserted", value: stateOf(assertedState)}

// boundaryReplies rewords, for peers, the local replies that Envoy gives to callers in the mesh in the name of who. A
// reply that has no mapper shows only its status.
func boundaryReplies(m *hcmv3.HttpConnectionManager, who, boundary string) {
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
