package envoy

import (
	"math"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Each filter that a request passes costs some microseconds, and to most requests several would do nothing. So a
// server's routes come twice: first for ordinary requests, then, for all others, with those filters switched on. What
// is switched on is in the routes alone, which change without an end to any connection.

// ordinary returns routes for requests at which none of the filters of closely would act: nothing in the path or the
// Host that hygiene looks for, no caller that a gateway may have asserted, and no late attempt (lateAttempt): what is
// no number no Envoy has written.
func ordinary(routes []*routev3.Route) []*routev3.Route {
	for _, r := range routes {
		r.Match.PathSpecifier = ordinaryPath
		r.Match.Headers = append(r.Match.Headers, authorityMatcher(plainHost),
			&routev3.HeaderMatcher{
				Name: callerHeader, InvertMatch: true,
				HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
			},
			&routev3.HeaderMatcher{
				Name: attemptHeader, InvertMatch: true, TreatMissingHeaderAsEmpty: true,
				HeaderMatchSpecifier: &routev3.HeaderMatcher_RangeMatch{
					RangeMatch: &typev3.Int64Range{Start: mostAttempts, End: math.MaxInt64},
				},
			})
	}
	return routes
}

// closely returns routes on which these filters look at a request.
func closely(filters map[string]*anypb.Any, routes []*routev3.Route) []*routev3.Route {
	for _, r := range routes {
		r.TypedPerFilterConfig = filters
	}
	return routes
}

func inboundRoutes(name, target string, in model.Inbound, server authz.Server) *routev3.RouteConfiguration {
	ps := server.Read(in.Policies)
	noted := []*statevaluev3.FilterStateValue{noteAttempt}
	if len(server.Gateways) > 0 {
		noted = append(noted, noteAsserted(server.Gateways))
	}
	closer := map[string]*anypb.Any{notesFilter: anyOf(notes(noted...))}
	deny := refuseLookalikes(denyRBAC(ps), policyHeaders(in.Policies))
	all := policyConfig(deny, allowRBAC(ps))
	if fold := foldConfig(in.Policies); fold != nil {
		all[foldFilter] = fold
	}
	if deny == nil { // hygiene is all that it would look for
		closer[denyFilter] = all[denyFilter]
		delete(all, denyFilter)
	}
	routes := append(ordinary(toPrograms(target, in.Protocol)), closely(closer, toPrograms(target, in.Protocol))...)
	return &routev3.RouteConfiguration{
		Name:                   name,
		VirtualHosts:           []*routev3.VirtualHost{{Name: name, Domains: everyHost, Routes: routes}},
		RequestHeadersToRemove: overrideHeaders, ResponseHeadersToRemove: []string{wellknown.HeaderUnavailable},
		TypedPerFilterConfig: all,
	}
}
