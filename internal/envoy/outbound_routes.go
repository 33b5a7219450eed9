package envoy

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/pathmatch"
)

// Routes of an Outbound that tell requests apart. A route of the model becomes several of Envoy's, since retries differ
// by method and clusters by gRPC. These stay together, so the order of the model is Envoy's. The retries are those of
// all calls in the mesh (retries.go).

// share is the part of a route's calls that one cluster gets.
type share struct {
	cluster string
	weight  uint32
	to      *model.Destination
}

// sharesOf returns how a route's calls are divided. It is empty if no destination can serve. If only some can, the
// share of the others fails: it leads to nobody.
func sharesOf(w *model.Workload, r *model.Route) []share {
	var out []share
	serves := false
	for i := range r.To {
		d := &r.To[i]
		s := share{destinationName(w, d), d.Weight, d}
		switch {
		case d.Weight == 0 && len(r.To) > 1:
			continue
		case len(d.Groups) == 0:
			s.cluster = ours.named(nobody)
		default:
			serves = true
		}
		out = append(out, s)
	}
	if !serves {
		return nil
	}
	return out
}

// routesOf translates one route. With programs, some server of the Outbound is a program without an Envoy in front.
func routesOf(w *model.Workload, r *model.Route, programs bool) []*routev3.Route {
	var out []*routev3.Route
	switch to := sharesOf(w, r); {
	case r.Actions != nil && r.Actions.Redirect != nil:
		out = []*routev3.Route{redirect(*r.Actions.Redirect)}
	case len(to) == 0:
		out = []*routev3.Route{absentRoute(r)}
	default:
		out = forwarded(to, mirrorsOf(w, r), programs)
		if r.Actions != nil {
			act(*r.Actions, out)
		}
	}
	if r.Match == nil {
		return out
	}
	return narrowed(*r.Match, out)
}

// forwarded returns the routes to some clusters, with the retries of the mesh. If one of them consists of the mesh's
// gateways alone, only what nobody has started is retried, since gateways retry too.
func forwarded(to, mirrors []share, programs bool) []*routev3.Route {
	routes := []*routev3.Route{toShares(to, mirrors)}
	if both := slices.Concat(to, mirrors); slices.ContainsFunc(both, share.hasGRPCCluster) {
		grpc := toShares(each(to, share.ofGRPC), each(mirrors, share.ofGRPC))
		grpc.Match.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
		routes = []*routev3.Route{grpc, routes[0]}
	}
	groups, gateways := 0, false
	for _, s := range to {
		groups, gateways = max(groups, len(s.to.Groups)), gateways || s.to.LeadsOnlyTo(model.OwnGateways)
	}
	switch {
	case gateways:
		return each(routes, retrySafely)
	case groups > 1 && !programs:
		return retriedElsewhere(routes[0], groups)
	}
	return retried(!programs, routes...)
}

// hasGRPCCluster reports whether gRPC has a cluster of its own; see addPrograms.
func (s share) hasGRPCCluster() bool { return toOwnPrograms(s.to) && s.to.Port.Protocol == model.HTTP }

// ofGRPC returns the share of the requests of gRPC.
func (s share) ofGRPC() share {
	if s.hasGRPCCluster() && len(s.to.Groups) > 0 {
		s.cluster = grpcCluster(s.cluster)
	}
	return s
}

// toShares divides requests among clusters and copies them to others.
func toShares(to, mirrors []share) *routev3.Route {
	r := toCluster(to[0].cluster)
	if len(to) > 1 {
		all := &routev3.WeightedCluster{}
		for _, s := range to {
			all.Clusters = append(all.Clusters,
				&routev3.WeightedCluster_ClusterWeight{Name: s.cluster, Weight: u32(s.weight)})
		}
		r.GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: all}
	}
	for _, s := range mirrors {
		r.GetRoute().RequestMirrorPolicies = append(r.GetRoute().RequestMirrorPolicies,
			&routev3.RouteAction_RequestMirrorPolicy{
				Cluster: s.cluster, DisableShadowHostSuffixAppend: true,
				RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
					Numerator: s.weight, Denominator: typev3.FractionalPercent_MILLION,
				}},
			})
	}
	return r
}

// mirrorsOf returns the clusters to which a route's requests are copied, with the number per million as weight.
func mirrorsOf(w *model.Workload, r *model.Route) (out []share) {
	if r.Actions == nil {
		return nil
	}
	for i := range r.Actions.Mirrors {
		m := &r.Actions.Mirrors[i]
		if len(m.To.Groups) > 0 {
			out = append(out, share{destinationName(w, &m.To), m.PerMillion, &m.To})
		}
	}
	return out
}

// act adds the actions of a route to Envoy's routes.
func act(a model.Actions, routes []*routev3.Route) {
	for _, r := range routes {
		r.RequestHeadersToAdd, r.RequestHeadersToRemove = headersToAdd(a.Request), a.Request.Remove
		r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = headersToAdd(a.Response), a.Response.Remove
		to := r.GetRoute()
		to.PrefixRewrite = a.Rewrite.Path
		if a.Rewrite.Authority != "" {
			to.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: a.Rewrite.Authority}
		}
		if a.Timeout > 0 {
			to.Timeout = durationpb.New(a.Timeout)
		}
		switch l := a.Retries; {
		case l == nil:
		case l.Most == 0:
			to.RetryPolicy, r.RequestBodyBufferLimit = nil, nil
		default:
			to.RetryPolicy.NumRetries = u32(min(l.Most, to.RetryPolicy.GetNumRetries().GetValue()))
			if l.PerTry > 0 {
				to.RetryPolicy.PerTryTimeout = durationpb.New(l.PerTry)
			}
		}
	}
}

// headersToAdd takes values literally: Envoy would expand "%".
func headersToAdd(c model.HeaderChanges) []*corev3.HeaderValueOption {
	literal := func(h model.Header) *corev3.HeaderValueOption {
		return overwrite(h.Name, strings.ReplaceAll(h.Value, "%", "%%"))
	}
	return append(each(c.Set, literal), each(c.Add, func(h model.Header) *corev3.HeaderValueOption {
		o := literal(h)
		o.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		return o
	})...)
}

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	302: routev3.RedirectAction_FOUND, 303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(to model.Redirect) *routev3.Route {
	a := &routev3.RedirectAction{
		HostRedirect: to.Authority, PortRedirect: to.Port, ResponseCode: redirectCodes[to.Status],
	}
	if to.Scheme != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: to.Scheme}
	}
	if to.Path != "" {
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: to.Path}
	}
	r := toCluster("")
	r.Action = &routev3.Route_Redirect{Redirect: a}
	return r
}

// narrowed adds the conditions of a match to routes. It returns none if no path can match.
func narrowed(m model.RequestMatch, routes []*routev3.Route) []*routev3.Route {
	var headers []*routev3.HeaderMatcher
	if m.Method != (model.Match{}) {
		headers = append(headers, header(":method", m.Method))
	}
	if m.Authority != (model.Match{}) {
		headers = append(headers, header(":authority", m.Authority))
	}
	for _, h := range m.Headers {
		headers = append(headers, header(h.Name, h.Match))
	}
	for _, h := range m.NotHeaders {
		not := header(h.Name, h.Match)
		not.InvertMatch, not.TreatMissingHeaderAsEmpty = true, h.Match.Kind != model.Present
		headers = append(headers, not)
	}
	for _, r := range routes {
		if m.Path != (model.Match{}) && !matchPath(r.Match, m.Path) {
			return nil
		}
		r.Match.Headers = slices.Concat(headers, r.Match.Headers)
		r.Match.QueryParameters = each(m.Query, queryMatcher)
	}
	return routes
}

// matchPath sets the path of a match. It returns false for a template that matches nothing, since it is not valid.
func matchPath(m *routev3.RouteMatch, p model.Match) bool {
	expression := ""
	switch p.Kind {
	case model.Exact:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Value}
		return true
	case model.Prefix:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: p.Value}
		return true
	case model.Present:
		return true
	case model.Suffix:
		expression = `\C*` + quote(p.Value)
	case model.Template:
		expression = pathmatch.Written(p).Regex
	}
	m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}
	return expression != ""
}

func queryMatcher(q model.NamedMatch) *routev3.QueryParameterMatcher {
	m := &routev3.QueryParameterMatcher{Name: q.Name}
	if q.Match.Kind == model.Present {
		m.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
	} else {
		m.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatcher(q.Match)}
	}
	return m
}
