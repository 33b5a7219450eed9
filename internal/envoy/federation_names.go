package envoy

import (
	_ "embed"
	"strconv"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"isthmus.dev/isthmus/internal/model"
)

// An application names itself as it was asked for, which behind a gateway is an inner name: in redirects, links and
// cookies. What a program needs in order to go on is rewritten at the boundary, and what is nobody's business taken off
// (docs/kinds/federatedexport.md). Envoy's other filters see one value of a header, and cookies have many; so this is
// Lua.

var (
	//go:embed innernames.lua
	innerNames string
	//go:embed inneranswers.lua
	innerAnswers string
	//go:embed innerorigin.lua
	innerOrigin string
)

// The headers that the two scripts look at.
var (
	answersNaming = []string{
		"location", "content-location", "link", "refresh", "set-cookie",
		"access-control-allow-origin",
	}
	requestsNaming = []string{"origin", "referer"}
)

// innerNamesOfAnswers rewrites what an exported service answers.
func innerNamesOfAnswers(svc *model.Service, domain string) *hcmv3.HttpFilter {
	names := rewriteNames(svc.Host, model.HostNames(svc, domain), domain, innerAnswers)
	return forAnswersWith(names, answersNaming...)
}

// innerNamesOfRequests takes off where in the mesh a request that leaves it was made.
func innerNamesOfRequests(domain string) *hcmv3.HttpFilter {
	return forRequestsWith(rewriteNames("", nil, domain, innerOrigin), requestsNaming...)
}

func rewriteNames(host string, names []string, domain, script string) *hcmv3.HttpFilter {
	given := "local host, suffix = " + strconv.Quote(host) + ", " + strconv.Quote("."+model.ServiceSuffix(domain)) +
		"\nlocal names = {"
	for _, n := range names {
		given += "[" + strconv.Quote(strings.ToLower(n)) + "] = true, "
	}
	return newHTTPFilter(namesFilter, anyOf(&luav3.Lua{DefaultSourceCode: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: given + "}\n" + innerNames + script},
	}}))
}

// answerTrailersRemoved are trailers of an answer that name the inside, or that only headers may say.
var answerTrailersRemoved = append(
	each([]string{"isthmus-", "x-envoy-", "x-forwarded-"}, removedPrefix),
	each(append([]string{
		"location", "content-location", "link", "refresh", "set-cookie", "access-control-allow-origin",
	}, leaks...), removed)...,
)

// foreignIsthmusHeaders takes off an answer what begins with "isthmus-" and is an application's: all but the headers
// that Envoys of a mesh alone write (whether a request was begun, the legs of a probe, upgrades).
var foreignIsthmusHeaders = &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
	RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
		KeyMatcher: regex(`isthmus-(?:[^uie].*|u(?:[^np].*|n[^a].*|p[^g].*)|i(?:[^n].*|n[^g].*)|e[^g].*)`),
	},
}}
