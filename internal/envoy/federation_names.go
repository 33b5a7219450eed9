package envoy

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"isthmus.dev/isthmus/internal/model"
)

// An application refers to itself by the name it was called, which behind a gateway is an internal name: in redirects,
// links and cookies. At the boundary, what clients need is rewritten and the rest removed
// (docs/kinds/federatedexport.md). This uses Lua because Envoy's other filters see only one value of a header, and
// there may be several cookies.

var (
	//go:embed innernames.lua
	innerNames string
	//go:embed inneranswers.lua
	innerAnswers string
	//go:embed innerorigin.lua
	innerOrigin string
)

// The headers that the two scripts process.
var (
	answersNaming = []string{
		"location", "content-location", "link", "refresh", "set-cookie",
		"access-control-allow-origin",
	}
	requestsNaming = []string{"origin", "referer"}
)

// innerNamesOfAnswers rewrites the responses of an exported service.
func innerNamesOfAnswers(svc *model.Service, domain string) *hcmv3.HttpFilter {
	names := rewriteNames(svc.Host, model.HostNames(svc, domain), domain, innerAnswers)
	return forAnswersWith(names, answersNaming...)
}

// innerNamesOfRequests removes from requests that leave the mesh where they come from.
func innerNamesOfRequests(domain string) *hcmv3.HttpFilter {
	return rewriteNames("", nil, domain, innerOrigin)
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

// answerTrailersRemoved are response trailers that reveal internals or are allowed only as headers.
var answerTrailersRemoved = append(
	each([]string{"isthmus-", "x-envoy-", "x-forwarded-"}, removedPrefix),
	each(slices.Concat(answersNaming, leaks), removed)...,
)

// foreignIsthmusHeaders matches headers that start with "isthmus-", except those that only Envoys of a mesh set
// (unavailable, the legs of a probe, upgrades).
const foreignIsthmusHeaders = `isthmus-(?:[^uie].*|u(?:[^np].*|n[^a].*|p[^g].*)|i(?:[^n].*|n[^g].*)|e[^g].*)`
