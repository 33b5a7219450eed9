package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	customheaderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus.dev/isthmus/internal/model"
)

// overrideHeaders let a client claim another method, path or sender than the request line says. They are always
// removed, and what looks like them (ownLookalikes).
var overrideHeaders = []string{
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
	"x-forwarded-host",
	callerHeader, "isthmus-peer", "x-envoy-external-address", "x-envoy-internal", upgradeHeader,
}

// httpManager is the hardened HTTP connection manager (docs/requests.md): paths are normalised but for "//", which
// policies see through; escaped slashes and ambiguous framing are refused. The Host stays as the client sent it: where
// a request goes is settled before anybody reads it, and policies compare it in every spelling (authz_host.go).
func httpManager(
	name string,
	routes string,
	filters []*hcmv3.HttpFilter,
	log []*accesslogv3.AccessLog,
) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{
			Rds: &hcmv3.Rds{RouteConfigName: routes, ConfigSource: overADS()},
		},
		UpgradeConfigs:               upgrades(),
		NormalizePath:                boolean(true),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:     noLimit(),
			MaxHeadersCount: u32(maxHeaders),
		},
		HttpProtocolOptions:           http1Options(""),
		MaxRequestHeadersKb:           u32(maxHeadersKiB),
		ForwardClientCertDetails:      hcmv3.HttpConnectionManager_SANITIZE,
		OriginalIpDetectionExtensions: []*corev3.TypedExtensionConfig{nobodysWord},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{earlyMutations},
		GenerateRequestId:             boolean(false),
		ServerHeaderTransformation:    hcmv3.HttpConnectionManager_PASS_THROUGH,
		RequestHeadersTimeout:         millis(headersTimeout),
		RequestTimeout:                noLimit(),
		StreamIdleTimeout:             noLimit(),
		StreamFlushTimeout:            noLimit(),
		Proxy_100Continue:             true,
		Http2ProtocolOptions:          http2Options(),
		AccessLog:                     log,
	}
	addHTTPFilters(m, append(filters, router)...)
	return m
}

// nobodysWord has a request come from where its connection does, whatever x-forwarded-for says: it looks for an address
// in a header that no client can send. Unlike use_remote_address it leaves x-forwarded-for, and x-forwarded-proto, as
// the client sent them. Where there is no x-forwarded-proto, Envoy says what the client spoke.
var nobodysWord = &corev3.TypedExtensionConfig{
	Name:        "nobodys_word",
	TypedConfig: anyOf(&customheaderv3.CustomHeaderConfig{HeaderName: ":nobody"}),
}

// earlyMutations come before anything reads the headers: what Envoys say to each other is removed, whoever sends it,
// and upgrades get their common name.
var earlyMutations = early(append([]*mutationv3.HeaderMutation{betweenEnvoys}, renameUpgrade...)...)

// betweenEnvoys removes what Envoys say to each other.
var betweenEnvoys = removedPrefix("x-envoy-")

func early(mutations ...*mutationv3.HeaderMutation) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "early", TypedConfig: anyOf(&earlyv3.HeaderMutation{Mutations: mutations}),
	}
}

// router counts no answers by status: nobody reads these (see statsConfig of the bootstrap), yet each costs a little.
var router = newHTTPFilter(routerFilter, anyOf(&routerv3.Router{
	SuppressEnvoyHeaders: true, DynamicStats: boolean(false),
}))

// policyFilters hold nothing but "deny all". What they enforce stands in the route configuration (policyConfig), so
// that a policy change drains no connection.
func policyFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		newHTTPFilter(denyFilter, anyOf(&httprbacv3.RBAC{})),
		newHTTPFilter(allowFilter, anyOf(&httprbacv3.RBAC{Rules: &rbacv3.RBAC{}})),
	}
}

// policyConfig is what the two filters enforce under one route configuration.
func policyConfig(deny, allow *rbacv3.RBAC) map[string]*anypb.Any {
	if deny == nil {
		deny = &rbacv3.RBAC{Action: rbacv3.RBAC_DENY}
	}
	if deny.Policies == nil {
		deny.Policies = map[string]*rbacv3.Policy{}
	}
	deny.Policies[hygienePolicy] = pathHygiene
	deny.Policies[hostPolicy] = hostHygiene
	return map[string]*anypb.Any{
		denyFilter:  anyOf(&httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: deny}}),
		allowFilter: anyOf(&httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: allow}}),
	}
}

func managerFilter(m *hcmv3.HttpConnectionManager) *listenerv3.Filter {
	return newNetworkFilter(httpFilter, anyOf(m))
}

// toCluster routes everything to one cluster; a request may take as long as it takes, whatever grpc-timeout says: that
// is for the server and its client to keep.
func toCluster(cluster string) *routev3.Route {
	return &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{
			Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          millis(0),
			},
		},
	}
}

// toPrograms routes to a cluster of programs and not of Envoys. A program at an "http" port speaks HTTP/1.1, as Istio
// has it, but gRPC can only be HTTP/2.
func toPrograms(cluster string, p model.Protocol) []*routev3.Route {
	if p != model.HTTP {
		return []*routev3.Route{toCluster(cluster)}
	}
	grpc := toCluster(grpcCluster(cluster))
	grpc.Match.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
	return []*routev3.Route{grpc, toCluster(cluster)}
}

func grpcCluster(name string) string { return name + "/grpc" }

// retrySafely has a route retry only what the server has not begun.
func retrySafely(r *routev3.Route) *routev3.Route {
	r.GetRoute().RetryPolicy = &routev3.RetryPolicy{
		RetryOn: "connect-failure,refused-stream,reset-before-request", NumRetries: u32(2),
	}
	r.RequestBodyBufferLimit = &wrapperspb.UInt64Value{Value: retriedBody}
	return r
}
