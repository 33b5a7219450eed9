package envoy

import (
	"slices"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// As at a server (inbound_routes.go), the routes of a chain whose calls cross the boundary come twice: for ordinary
// requests, with the filters switched off that would find nothing, and for all others. Here a matcher chooses, because
// it sees a repeated header as one value. The conditions of a route would hold if any of the lines matched.

// crossing describes ordinary requests: pathHygiene and plainRequestID have nothing to change or refuse, all of these
// predicates hold, and none of those. Their routes switch these filters off. Other requests are changed in this way.
type crossing struct {
	with, without []*predicate
	off           []string
	changed       *mutationv3.HeaderMutation
}

const (
	// ordinaryTarget matches a path in which pathHygiene finds nothing, with any query.
	ordinaryTarget = `/[^;%?#]*(?:\?\C*)?`
	// oddID matches an ID that is too long or not plain, or several IDs.
	oddID = `\C*[^` + idCharacters + `]\C*|\C{129,}`
)

// routes returns the choice between the routes of ordinary requests and those of others.
func (c crossing) routes(to []*routev3.Route) *xdsmatcherv3.Matcher {
	with := append(slices.Clone(c.with), valueLike(requestHeader(":path"), ordinaryTarget))
	without := append(slices.Clone(c.without), valueLike(requestHeader("x-request-id"), oddID))
	isOrdinary := allOfPredicates(append(with, each(without, notPredicate)...)...)

	off := map[string]*anypb.Any{}
	for _, name := range c.off {
		off[name] = anyOf(&routev3.FilterConfig{Disabled: true})
	}
	quick := closely(off, each(to, proto.CloneOf))
	if c.changed != nil {
		closely(map[string]*anypb.Any{boundaryFilter: anyOf(&headermutationv3.HeaderMutationPerRoute{
			Mutations: &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{c.changed}},
		})}, to)
	}
	return choice(isOrdinary, doing(&routev3.RouteList{Routes: quick}), doing(&routev3.RouteList{Routes: to}))
}
