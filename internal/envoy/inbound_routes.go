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

// Each filter costs every request some microseconds, and most filters have nothing to do for most requests. So a server
// has its routes twice: first for ordinary requests, then, for all others, with those filters enabled. Enabling is part
// of the route configuration, so changes close no connections.

// ordinary returns routes for requests on which none of the filters of closely would act: nothing in the path or Host
// concerns the hygiene rules, no gateway may have asserted a caller, and it is no late attempt (lateAttempt). Envoys
// write only numbers as attempt.
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

// closely returns routes that enable these filters.
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
	if deny == nil { // only the hygiene rules would apply
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
