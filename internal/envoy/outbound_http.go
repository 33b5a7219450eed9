package envoy

import (
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Each request is load-balanced by itself, and retried elsewhere if no server has started it. The server decides which
// requests are acceptable, since it enforces policy. Here requests pass unchanged, whatever their Host: the address has
// determined the destination.
//
// All destinations of a kind share one connection manager, which each chain references by name (ECDS). A manager takes
// some kilobytes; otherwise a listener would consist mostly of copies. It is identical for all workloads of all meshes.
// Chain and listener supply the differences: the chain's name is the cluster's, the chain's metadata hold the called
// host, and the listener's metadata name the workload. An Outbound whose routes change or tell requests apart
// (outbound_routes.go) has its own manager with RDS, so that changes drain no connections.

// Metadata keys. The called host is in the chain's metadata, the others are in the listener's.
const (
	callingWorkload = "workload"
	callingIdentity = "identity"
)

// ofListener formats a value of the listener's metadata.
func ofListener(key string) string { return "%METADATA(LISTENER:" + hostTags + ":" + key + ")%" }

// ofChain formats a value of the chain's metadata.
const ofChain = "%FILTER_CHAIN_NAME%"

// Internal headers that tell a shared manager's routes which cluster to use. No client can set them.
const (
	clusterHeader     = "isthmus-cluster"
	grpcClusterHeader = "isthmus-grpc-cluster" // for programs that may speak HTTP/1.1
)

// unnamedHost replaces the missing host of an HTTP/1.0 request.
const unnamedHost = "unnamed.isthmus.invalid"

// sharedManager returns the filter that refers to the shared manager for this kind of destination.
func (b *builder) sharedManager(d *model.Destination) *listenerv3.Filter {
	sort := toEnvoys
	if toOwnPrograms(d) {
		sort = toHTTP2Programs
		if d.Port.Protocol == model.HTTP {
			sort = toHTTP1Programs
		}
	}
	return b.builtin(httpFilter, sharedManagers[sort])
}

// callee is the kind of server: Envoys of the mesh, or programs. Programs at an "http" port speak HTTP/1.1, except for
// gRPC.
type callee int

const (
	toEnvoys callee = iota
	toHTTP1Programs
	toHTTP2Programs
)

// sharedManagers are the names of the shared managers, by callee.
var sharedManagers = [...]string{
	toEnvoys: "to-envoys", toHTTP1Programs: "to-programs", toHTTP2Programs: "to-programs-http2",
}

func sharedManagerOf(c callee, name string) *hcmv3.HttpConnectionManager {
	m := outboundManager(name, ofChain, tag{name: "object", value: ofChain})
	m.HttpProtocolOptions.DefaultHostForHttp_10 = unnamedHost
	called := clusterOf(ofListener(callingWorkload), ofChain)
	clusters := []*mutationv3.HeaderMutation{written(clusterHeader, called)}
	if c == toHTTP1Programs {
		clusters = append(clusters, written(grpcClusterHeader, grpcCluster(called)))
	}
	m.EarlyHeaderMutationExtensions = append(m.EarlyHeaderMutationExtensions, &corev3.TypedExtensionConfig{
		Name: "clusters", TypedConfig: anyOf(&earlyv3.HeaderMutation{Mutations: clusters}),
	})
	unnamed := sharedRoutes(c)
	for _, r := range unnamed {
		r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewrite{HostRewrite: ofChain}
	}
	rc := outboundRoutes(name, name, c != toEnvoys, sharedRoutes(c))
	rc.RequestHeadersToRemove = append(rc.RequestHeadersToRemove, clusterHeader, grpcClusterHeader)
	rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{
		Name: "unnamed", Domains: []string{unnamedHost}, Routes: unnamed, IncludeRequestAttemptCount: c == toEnvoys,
	})
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc}
	return m
}

// sharedRoutes lead to the cluster that the header names.
func sharedRoutes(c callee) []*routev3.Route {
	routes := []*routev3.Route{toCluster("")}
	if c == toHTTP1Programs {
		routes = toPrograms("", model.HTTP)
	}
	for n, r := range routes {
		header := clusterHeader
		if n < len(routes)-1 {
			header = grpcClusterHeader
		}
		r.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: header}
	}
	return retried(c == toEnvoys, routes...)
}

// ownManager returns the manager of a single Outbound, with RDS.
func (b *builder) ownManager(w *model.Workload, o model.Outbound) *listenerv3.Filter {
	called, name := chainName(o), chainOf(w, o)
	m := outboundManager(name, called, tag{name: "object", value: SetName(o.Set())},
		tag{name: wellknown.TagAbsent, value: "%METADATA(ROUTE:" + hostTags + ":" + wellknown.TagAbsent + ")%"})
	absent := absentReply
	if o.Sole() == nil { // a redirect is a direct response too
		absent.when = allOfFilters(answered(503), absent.when)
	}
	m.LocalReplyConfig.Mappers = slices.Insert(m.LocalReplyConfig.Mappers, 1, absent.mapper(called))
	m.HttpProtocolOptions.DefaultHostForHttp_10 = o.Service.Host
	programs := slices.ContainsFunc(o.Destinations(), toOwnPrograms)
	var routes []*routev3.Route
	for _, r := range o.Routes {
		routes = append(routes, routesOf(w, r, programs)...)
	}
	refs := append(slices.Clone(o.By), o.Service.Refs...)
	b.add(RouteType, name, outboundRoutes(name, o.Service.Host, programs, routes), refs)
	return managerFilter(m)
}

// outboundManager returns a new manager. host is named in its local replies.
func outboundManager(name, host string, tags ...tag) *hcmv3.HttpConnectionManager {
	tags = append([]tag{workloadTag(ofListener(callingWorkload))}, tags...)
	m := withLocalReplies(httpManager(name, name, nil, refusalsAtClient(outboundLog, tags...)), host)
	m.LocalReplyConfig.Mappers = append([]*hcmv3.ResponseMapper{noLongerListed}, m.LocalReplyConfig.Mappers...)
	passUnchanged(m)
	return m
}

func outboundRoutes(name, host string, programs bool, routes []*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: name, ResponseHeadersToRemove: []string{wellknown.HeaderUnavailable},
		RequestHeadersToRemove: []string{upgradeHeader}, // added by Envoy
		VirtualHosts: []*routev3.VirtualHost{{
			Name: host, Domains: everyHost, Routes: routes, IncludeRequestAttemptCount: !programs,
		}},
	}
}
