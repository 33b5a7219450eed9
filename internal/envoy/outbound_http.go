package envoy

import (
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statevaluev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Each request is sent by itself to an endpoint, and one that no server has begun to another one. What a request may
// look like the server decides, who has the policy: here it passes as it is, whatever Host it names, since the address
// has said where it goes.
//
// All destinations of a workload that are called in one way share a connection manager, which each chain asks for by
// name: a manager is some kilobytes, and most of a listener would be the same few over and over. What differs the
// connection says: the chain has the name of the cluster, and its state that of the host. A destination whose routes
// change has a manager of its own, whose routes come by themselves, so that no connection is drained.

// calledState is where a connection's state holds the host that is called.
const calledState = "isthmus.called"

func calledHost(o model.Outbound) *statevaluev3.FilterStateValue {
	return &statevaluev3.FilterStateValue{
		Key: &statevaluev3.FilterStateValue_ObjectKey{ObjectKey: calledState}, FactoryKey: stringState,
		Value: &statevaluev3.FilterStateValue_FormatString{FormatString: bodyFormat(o.Service.Host)},
	}
}

// The headers that say, between a shared manager and its routes, to which cluster a request goes. No client can set
// them.
const (
	clusterHeader     = "isthmus-cluster"
	grpcClusterHeader = "isthmus-grpc-cluster" // at programs that may speak HTTP/1.1
)

// unnamedHost stands for the called host in a request of HTTP/1.0 that names none.
const unnamedHost = "unnamed.isthmus.invalid"

// sharedManager is the filter that finds the manager of all destinations that are called like this one.
func (b *builder) sharedManager(w *model.Workload, o model.Outbound) *listenerv3.Filter {
	name := httpFilter + "/" + w.ID.String()
	if toOwnPrograms(o) {
		name += "/" + o.Port.Protocol.String()
	}
	if !b.shared[name] {
		b.shared[name] = true
		b.add(
			ExtensionType,
			name,
			&corev3.TypedExtensionConfig{Name: name, TypedConfig: anyOf(shareable(name, w, o))},
			nil,
		)
	}
	return &listenerv3.Filter{
		Name: name,
		ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: overADS(), TypeUrls: []string{typeURL(&hcmv3.HttpConnectionManager{})},
		}},
	}
}

func shareable(name string, w *model.Workload, o model.Outbound) *hcmv3.HttpConnectionManager {
	host := stateOf(calledState)
	m := outboundManager(name, w, host, tag{name: "object", value: host + ":%DOWNSTREAM_LOCAL_PORT%"})
	m.HttpProtocolOptions.DefaultHostForHttp_10 = unnamedHost
	clusters := []*mutationv3.HeaderMutation{written(clusterHeader, "%FILTER_CHAIN_NAME%")}
	if toOwnPrograms(o) && o.Port.Protocol == model.HTTP {
		clusters = append(clusters, written(grpcClusterHeader, grpcCluster("%FILTER_CHAIN_NAME%")))
	}
	m.EarlyHeaderMutationExtensions = append(m.EarlyHeaderMutationExtensions, &corev3.TypedExtensionConfig{
		Name: "clusters", TypedConfig: anyOf(&earlyv3.HeaderMutation{Mutations: clusters}),
	})
	unnamed := sharedRoutes(o)
	for _, r := range unnamed {
		r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewrite{HostRewrite: host}
	}
	rc := outboundRoutes(name, o, sharedRoutes(o))
	rc.RequestHeadersToRemove = append(rc.RequestHeadersToRemove, clusterHeader, grpcClusterHeader)
	rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{
		Name: "unnamed", Domains: []string{unnamedHost}, Routes: unnamed, IncludeRequestAttemptCount: !toOwnPrograms(o),
	})
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc}
	return m
}

// sharedRoutes lead to the cluster that the header names.
func sharedRoutes(o model.Outbound) []*routev3.Route {
	routes := []*routev3.Route{toCluster("")}
	if toOwnPrograms(o) {
		routes = toPrograms("", o.Port.Protocol)
	}
	for n, r := range routes {
		header := clusterHeader
		if n < len(routes)-1 {
			header = grpcClusterHeader
		}
		r.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: header}
	}
	return retried(!toOwnPrograms(o), routes...)
}

// ownManager is the manager of one destination, with routes that come by themselves.
func (b *builder) ownManager(w *model.Workload, o model.Outbound, name string, refs []model.Ref) *listenerv3.Filter {
	m := outboundManager(name, w, o.Service.Host, tag{name: "object", value: SetName(o.Set())},
		tag{name: wellknown.TagAbsent, value: "%METADATA(ROUTE:" + hostTags + ":" + wellknown.TagAbsent + ")%"})
	m.LocalReplyConfig.Mappers = slices.Insert(m.LocalReplyConfig.Mappers, 1, absentReply.mapper(o.Service.Host))
	m.HttpProtocolOptions.DefaultHostForHttp_10 = o.Service.Host
	var routes []*routev3.Route
	switch {
	case len(o.Route.To) == 0:
		routes = []*routev3.Route{absentRoute(o.Route)}
	case len(o.Route.To) > 1:
		routes = retriedElsewhere(toCluster(name), len(o.Route.To))
	case toOwnPrograms(o):
		routes = retried(false, toPrograms(name, o.Port.Protocol)...)
	case o.Route.Leads(model.OwnEndpoints):
		routes = retried(true, toCluster(name))
	default:
		routes = []*routev3.Route{retrySafely(toCluster(name))}
	}
	rc := outboundRoutes(name, o, routes)
	rc.VirtualHosts[0].Name = o.Service.Host
	b.add(RouteType, name, rc, refs)
	return managerFilter(m)
}

// outboundManager begins a manager that speaks of who is called, host, in its answers.
func outboundManager(name string, w *model.Workload, host string, tags ...tag) *hcmv3.HttpConnectionManager {
	m := httpManager(name, name, nil, refusalsAtClient(outboundLog, append([]tag{workloadTag(w.ID.String())}, tags...)...))
	withLocalReplies(m, host)
	m.LocalReplyConfig.Mappers = append([]*hcmv3.ResponseMapper{noLongerListed(w)}, m.LocalReplyConfig.Mappers...)
	passUnchanged(m)
	return m
}

func outboundRoutes(name string, o model.Outbound, routes []*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: name, ResponseHeadersToRemove: []string{wellknown.HeaderUnavailable},
		RequestHeadersToRemove: []string{upgradeHeader}, // which Envoy adds
		VirtualHosts: []*routev3.VirtualHost{{
			Name: name, Domains: everyHost, Routes: routes, IncludeRequestAttemptCount: !toOwnPrograms(o),
		}},
	}
}
