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

// overrideHeaders let a client claim another method, path or sender than the request line says. They and their
// lookalikes (ownLookalikes) are always removed.
var overrideHeaders = []string{
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
	"x-forwarded-host",
	callerHeader, "isthmus-peer", "x-envoy-external-address", "x-envoy-internal", upgradeHeader,
}

// httpManager returns the hardened HTTP connection manager (docs/requests.md). Paths are normalised except for "//",
// which policies handle. Escaped slashes and ambiguous framing are refused. The Host stays as sent: it does not affect
// routing, and policies compare it in every spelling (authz_host.go).
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
		OriginalIpDetectionExtensions: []*corev3.TypedExtensionConfig{connectionAddress},
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

// connectionAddress makes the connection's address the client address, ignoring x-forwarded-for: it reads a header that
// no client can send. Unlike use_remote_address it leaves x-forwarded-for and x-forwarded-proto as sent. If
// x-forwarded-proto is absent, Envoy sets it.
var connectionAddress = &corev3.TypedExtensionConfig{
	Name:        "nobodys_word",
	TypedConfig: anyOf(&customheaderv3.CustomHeaderConfig{HeaderName: ":nobody"}),
}

// earlyMutations run before anything reads the headers. They remove headers that only Envoys may send each other, and
// rename upgrades.
var earlyMutations = early(append([]*mutationv3.HeaderMutation{betweenEnvoys}, renameUpgrade...)...)

// betweenEnvoys removes headers that only Envoys may send each other.
var betweenEnvoys = removedPrefix("x-envoy-")

func early(mutations ...*mutationv3.HeaderMutation) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "early", TypedConfig: anyOf(&earlyv3.HeaderMutation{Mutations: mutations}),
	}
}

// router counts no responses by status. Nobody reads those counters (see statsConfig in the bootstrap), and they cost
// CPU.
var router = newHTTPFilter(routerFilter, anyOf(&routerv3.Router{
	SuppressEnvoyHeaders: true, DynamicStats: boolean(false),
}))

// policyFilters contain only "deny all". The policies are in the route configuration (policyConfig), so that a change
// of policy drains no connections.
func policyFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		newHTTPFilter(denyFilter, anyOf(&httprbacv3.RBAC{})),
		newHTTPFilter(allowFilter, anyOf(&httprbacv3.RBAC{Rules: &rbacv3.RBAC{}})),
	}
}

// policyConfig returns the per-route configuration of the two filters.
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

// toCluster routes everything to one cluster, without a timeout. It ignores grpc-timeout, which client and server
// enforce themselves.
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

// toPrograms routes to a cluster of programs, not Envoys. As in Istio, a program at an "http" port speaks HTTP/1.1, but
// gRPC always is HTTP/2.
func toPrograms(cluster string, p model.Protocol) []*routev3.Route {
	if p != model.HTTP {
		return []*routev3.Route{toCluster(cluster)}
	}
	grpc := toCluster(grpcCluster(cluster))
	grpc.Match.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
	return []*routev3.Route{grpc, toCluster(cluster)}
}

func grpcCluster(name string) string { return name + "/grpc" }

// retrySafely makes a route retry only requests that the server has not started.
func retrySafely(r *routev3.Route) *routev3.Route {
	r.GetRoute().RetryPolicy = &routev3.RetryPolicy{
		RetryOn: "connect-failure,refused-stream,reset-before-request", NumRetries: u32(2),
	}
	r.RequestBodyBufferLimit = &wrapperspb.UInt64Value{Value: retriedBody}
	return r
}
