package envoy

import (
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Envoy's local replies say who replies, with an accurate status and text. Only policy uses 403. A refused caller
// learns which kind of policy refused, but no policy's name; names are in the log of the refusing proxy.

// reply is one kind of local reply.
type reply struct {
	when   *accesslogv3.AccessLogFilter
	status uint32 // replaces Envoy's; 0 keeps it
	text   string // follows "isthmus: <who>"

	unavailable string // for missing responses: whether the request was started
}

// hygieneReplies are for requests that different servers would interpret differently.
var hygieneReplies = []reply{
	{
		when:   detailed("[" + hygienePolicy + "]"),
		status: 400,
		text: " refuses this path: with ';', a malformed escape, or one of a " +
			"percent sign, a control character or an overlong form it means different things to different servers",
	},
	{
		when:   detailed("[" + hostPolicy + "]"),
		status: 400,
		text: " refuses this Host: two of them, user information, a space or an " +
			"escape in it mean different hosts to different servers",
	},
	{
		when:   detailed("[" + lookalikePolicy + "]"),
		status: 400,
		text: " refuses a header of this request: with '_' for '-', programs " +
			"may read it as one that a policy compares",
	},
}

// unsent matches requests that were certainly not started: there was no connection, none was attempted, or the server
// refused the stream (RFC 9113 §8.7).
var unsent = anyOfFilters(flagged("UF", "UO", "NC", "OM", "DF"), detailed("remote_refused_stream_reset"))

// unavailableReplies replace a response that could not be obtained. A header marks them and says whether the request
// was started (read by unavailable and by retries). In case of doubt, it may have been.
var unavailableReplies = []reply{
	{when: flagged("UH"), unavailable: wellknown.NotBegun, text: ": %RESPONSE_CODE% no endpoint behind it is ready"},
	{
		when: allOfFilters(anyAnswered(502, 503, 504), unsent), unavailable: wellknown.NotBegun,
		text: ": %RESPONSE_CODE% what is behind it could not be reached: %RESPONSE_FLAGS_LONG%",
	},
	{
		when: anyAnswered(502, 503, 504), unavailable: wellknown.Begun,
		text: ": %RESPONSE_CODE% what is behind it may have begun this request, and did not answer: " +
			"%RESPONSE_FLAGS_LONG%",
	},
}

// begunAgainReply applies where attempts are recorded (noteAttempt), and precedes the last of these.
var begunAgainReply = reply{
	when: allOfFilters(anyAnswered(502, 503, 504), lateAttempt), unavailable: wellknown.BegunAgain,
	text: ": %RESPONSE_CODE% what is behind it may have begun this request, as others before it, and did not answer: " +
		"%RESPONSE_FLAGS_LONG%",
}

// absentReply applies if a route has no destination and says why.
var absentReply = reply{
	when:        detailed("direct_response"),
	unavailable: wellknown.NotBegun,
	text:        ": %RESPONSE_CODE% %LOCAL_REPLY_BODY%",
}

// policyReplies distinguish the refusals of a workload.
var policyReplies = []reply{
	{
		when: detailed("matched_policy[none]"),
		text: " refuses this request: no AuthorizationPolicy there allows this caller, method and path",
	},
	{
		when: detailed("matched_policy[" + model.ClosedPrefix),
		text: " refuses this request: a policy there is written and not in force, " +
			"so that nobody is let in",
	},
	refused("an AuthorizationPolicy there denies it"),
}

// refused returns the reply for everything that policy refuses.
func refused(reason string) reply {
	return reply{when: answered(403), text: " refuses this request: " + reason}
}

// withLocalReplies sets a manager's local replies. Callers' proxies enforce no policy and record no attempts, so they
// have no policies.
func withLocalReplies(m *hcmv3.HttpConnectionManager, who string, policies ...reply) *hcmv3.HttpConnectionManager {
	c := &hcmv3.LocalReplyConfig{
		BodyFormat: bodyFormat("isthmus: " + who + ": %RESPONSE_CODE% %LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)\n"),
	}
	unavailable := unavailableReplies
	if len(policies) > 0 {
		policies = slices.Concat(hygieneReplies, policies)
		unavailable = slices.Insert(slices.Clone(unavailable), len(unavailable)-1, begunAgainReply)
	}
	for _, r := range slices.Concat(upgradeReplies, policies, unavailable) {
		c.Mappers = append(c.Mappers, r.mapper(who))
	}
	m.LocalReplyConfig = c
	return m
}

func (r reply) mapper(who string) *hcmv3.ResponseMapper {
	m := &hcmv3.ResponseMapper{Filter: r.when, BodyFormatOverride: bodyFormat("isthmus: " + who + r.text + "\n")}
	if r.status != 0 {
		m.StatusCode = u32(r.status)
	}
	if r.unavailable != "" {
		m.HeadersToAdd = []*corev3.HeaderValueOption{overwrite(wellknown.HeaderUnavailable, r.unavailable)}
	}
	return m
}

// detailed matches replies whose response code details contain a text.
func detailed(text string) *accesslogv3.AccessLogFilter {
	return when(`response.code_details.contains("` + text + `")`)
}

func bodyFormat(text string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}},
	}}
}
