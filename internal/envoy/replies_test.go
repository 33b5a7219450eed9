package envoy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"isthmus.dev/isthmus/internal/wellknown"
)

// ownReply is what Envoy knows of an answer that it made itself.
type ownReply struct {
	status        uint32
	flag, details string
	late          bool // others have been asked before
}

// holds says whether a filter holds for an answer, as far as local replies use filters.
func (r ownReply) holds(t *testing.T, f *accesslogv3.AccessLogFilter) bool {
	t.Helper()
	each := func(fs []*accesslogv3.AccessLogFilter) (some, all bool) {
		all = true
		for _, f := range fs {
			h := r.holds(t, f)
			some, all = some || h, all && h
		}
		return some, all
	}
	switch s := f.FilterSpecifier.(type) {
	case *accesslogv3.AccessLogFilter_OrFilter:
		some, _ := each(s.OrFilter.Filters)
		return some
	case *accesslogv3.AccessLogFilter_AndFilter:
		_, all := each(s.AndFilter.Filters)
		return all
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return slices.Contains(s.ResponseFlagFilter.Flags, r.flag)
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		if s.StatusCodeFilter.Comparison.Op != accesslogv3.ComparisonFilter_EQ {
			t.Fatalf("a comparison that this test does not know: %v", s)
		}
		return r.status == s.StatusCodeFilter.Comparison.Value.DefaultValue
	case *accesslogv3.AccessLogFilter_ExtensionFilter:
		var e celv3.ExpressionFilter
		if err := s.ExtensionFilter.GetTypedConfig().UnmarshalTo(&e); err != nil {
			t.Fatal(err)
		}
		inDetails := regexp.MustCompile(`^response\.code_details\.contains\("(.*)"\)$`)
		if m := inDetails.FindStringSubmatch(e.Expression); m != nil {
			return strings.Contains(r.details, m[1])
		}
		if e.Expression == `size(filter_state["isthmus.attempt"]) > 0 && !(filter_state["isthmus.attempt"] in [b"1", b"2"])` {
			return r.late
		}
		if e.Expression == `request.method == "CONNECT"` {
			return false
		}
		t.Fatalf("an expression that this test does not know: %s", e.Expression)
	}
	t.Fatalf("a filter that this test does not know: %v", f)
	return false
}

// TestUnavailableMayBeBegun: nothing is said to be not begun unless that is certain. Response flags are all of Envoy's
// of requests.
func TestUnavailableMayBeBegun(t *testing.T) {
	m := withLocalReplies(&hcmv3.HttpConnectionManager{}, "default/web", policyReplies...)
	const begun, again, not, none = "begun", "begun-again", "not-begun", ""
	if wellknown.Begun != begun || wellknown.BegunAgain != again || wellknown.NotBegun != not {
		t.Fatal("the words have changed")
	}
	const refusedStream = "upstream_reset_before_response_started{remote_refused_stream_reset}"
	for _, c := range []struct {
		ownReply
		want string
	}{
		{ownReply{status: 503, flag: "UF"}, not},
		{ownReply{status: 503, flag: "UF", late: true}, not},
		{ownReply{status: 503, flag: "UH"}, not},
		{ownReply{status: 503, flag: "UO"}, not},
		{ownReply{status: 503, flag: "NC"}, not},
		{ownReply{status: 503, flag: "OM"}, not},
		{ownReply{status: 503, flag: "DF"}, not},
		{ownReply{status: 503, flag: "UR", details: refusedStream}, not},
		{ownReply{status: 503, flag: "UR"}, begun},
		{ownReply{status: 503, flag: "UC"}, begun},
		{ownReply{status: 503, flag: "UC", late: true}, again},
		{ownReply{status: 504, flag: "UT", late: true}, again},
		{ownReply{status: 503, flag: "LR"}, begun},
		{ownReply{status: 502, flag: "UPE"}, begun},
		{ownReply{status: 504, flag: "UT"}, begun},
		{ownReply{status: 504, flag: "SI"}, begun},
		{ownReply{status: 504, flag: "DT"}, begun},
		{ownReply{status: 504, flag: "UMSDR"}, begun},
		{ownReply{status: 503, flag: "URX"}, begun},
		{ownReply{status: 503, flag: "LH"}, begun},
		{ownReply{status: 503, flag: "DO"}, begun},
		{ownReply{status: 503, flag: "UDO"}, begun},
		{ownReply{status: 503, flag: "DI"}, begun},
		{ownReply{status: 503, flag: "FI"}, begun},
		{ownReply{status: 503, flag: "NR"}, begun},
		{ownReply{status: 503, flag: "DC"}, begun},
		{ownReply{status: 503, flag: "DPE"}, begun},
		{ownReply{status: 503, flag: "RLSE"}, begun},
		{ownReply{status: 503, flag: "IH"}, begun},
		{ownReply{status: 503, flag: "RFCF"}, begun},
		{ownReply{status: 503, flag: "one that is not known yet"}, begun},
		{ownReply{status: 503}, begun},
		{ownReply{status: 404, flag: "NR"}, none},
		{ownReply{status: 403, details: "rbac_access_denied_matched_policy[none]"}, none},
		{ownReply{status: 500, flag: "NFCF"}, none},
	} {
		got := none
		for _, mapper := range m.LocalReplyConfig.Mappers {
			if c.holds(t, mapper.Filter) {
				for _, h := range mapper.HeadersToAdd {
					got = h.Header.Value
				}
				break
			}
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.ownReply, got, c.want)
		}
	}
}
