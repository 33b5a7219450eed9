package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus.dev/isthmus/internal/wellknown"
)

// A request that an endpoint could not take is retried elsewhere. Any request is retried while no server has started
// it. A request with a safe method (RFC 9110 §9.2.1) is retried until a response has started, but is started by at most
// three servers, since it may be what crashes them.

// mostAttempts limits the servers that may start a request. mostRetries limits the retries of one that none has
// started.
const (
	mostAttempts = 3
	mostRetries  = 8
)

// A caller's Envoy numbers the attempts of a request, but not across meshes. Only the server's Envoy knows whether its
// program may have started the request. It records the number before such headers are removed (behindEnvoys).
const (
	attemptHeader = "x-envoy-attempt-count"
	attemptState  = "isthmus.attempt"
)

// lateAttempt matches the last attempt that may be started, and later ones. An earlier attempt may not have been
// started; then the request is given up sooner than necessary. Filter state holds bytes.
var lateAttempt = when(
	`size(filter_state["` + attemptState + `"]) > 0 && !(filter_state["` + attemptState + `"] in [b"1", b"2"])`,
)

// noteAttempt is for lateAttempt.
var noteAttempt = note(attemptState, "%REQ("+attemptHeader+")%")

// Connection limits inside the mesh. Whether a host responds at all shows within 3 seconds: the first SYN and one retry
// (TCP_SYNCNT 1). The TLS handshake may take longer: two thousand simultaneous callers keep a busy processor occupied
// for many seconds.
const connectTimeout = 30_000 // ms

// oneSYNRetry makes the kernel give up on a host that does not respond after 1 + 2 seconds (tcp(7)).
func oneSYNRetry() *corev3.SocketOption { return socketOption(6, 7, 1) }

// setMeshLimits sets a cluster's limits towards Envoys of this mesh: the connect timeout and the ejection of hosts. A
// host is ejected only if it cannot be connected to, which may cost each call seconds. A program that is not running
// costs only milliseconds, and its ejection would outlast its restart. The last host is never ejected, since trying it
// is better than trying none. At most four fifths of the requests in progress may be retries, to limit the load on a
// failing service.
func setMeshLimits(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.ConnectTimeout = millis(connectTimeout)
	c.UpstreamBindConfig.SocketOptions = append(c.UpstreamBindConfig.SocketOptions, oneSYNRetry())
	if c.OutlierDetection == nil {
		c.OutlierDetection = &clusterv3.OutlierDetection{
			EnforcingConsecutive_5Xx: u32(0), EnforcingConsecutiveGatewayFailure: u32(0), EnforcingSuccessRate: u32(0),
			Interval: millis(
				500,
			), BaseEjectionTime: millis(1000), MaxEjectionTime: millis(10_000), MaxEjectionPercent: u32(99),
			SplitExternalLocalOriginErrors: true,
			ConsecutiveLocalOriginFailure:  u32(5), EnforcingConsecutiveLocalOriginFailure: u32(100),
			EnforcingLocalOriginSuccessRate: u32(0),
		}
	}
	c.CircuitBreakers.Thresholds[0].RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
		BudgetPercent: &typev3.Percent{Value: 80}, MinRetryConcurrency: u32(500),
	}
	return c
}

// retried returns routes with retries that lead where routes lead: first for safe methods, then for others. With words,
// responses come from Envoys of a mesh, whose header about unreachable servers counts; an application's would not.
func retried(words bool, routes ...*routev3.Route) []*routev3.Route {
	var out []*routev3.Route
	for _, r := range routes {
		r.RequestBodyBufferLimit = &wrapperspb.UInt64Value{Value: retriedBody}
		safe := proto.CloneOf(r)
		safe.Match.Headers = append(safe.Match.Headers, &routev3.HeaderMatcher{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex("GET|HEAD|OPTIONS")},
		})
		safe.GetRoute().RetryPolicy = retryPolicy("connect-failure,refused-stream,reset-before-request,reset")
		r.GetRoute().RetryPolicy = retryPolicy("connect-failure,refused-stream,reset-before-request")
		if words {
			retryOnWord(safe, exactly(wellknown.NotBegun, wellknown.Begun)...)
			retryOnWord(r, exactly(wellknown.NotBegun)...)
		} else { // the responder does not say whether it was started
			safe.GetRoute().RetryPolicy.NumRetries = u32(mostAttempts - 1)
		}
		out = append(out, safe, r)
	}
	return out
}

func retryOnWord(r *routev3.Route, words ...*matcherv3.StringMatcher) {
	p := r.GetRoute().RetryPolicy
	p.RetryOn += ",retriable-headers"
	for _, word := range words {
		p.RetriableHeaders = append(p.RetriableHeaders, &routev3.HeaderMatcher{
			Name:                 wellknown.HeaderUnavailable,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: word},
		})
	}
}

// retryPolicy prefers hosts that have not failed, after up to 10, 30, 70, 150 and then 250 ms, about 0.6 s in total: a
// call may meet one endpoint before it is back and another that has just gone.
func retryPolicy(on string) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn: on, NumRetries: u32(mostRetries),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "previous_hosts", ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: anyOf(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 4,
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: millis(10),
			MaxInterval:  millis(250),
		},
	}
}

// retriedElsewhere returns the routes to an import's sources, with retries: first at another endpoint of the same
// priority, then at the next priority.
func retriedElsewhere(r *routev3.Route, sources int) []*routev3.Route {
	routes := retried(true, r)
	for _, r := range routes {
		p := r.GetRoute().RetryPolicy
		p.NumRetries = u32(uint32(min(2*sources, 6)))
		p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: anyOf(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2}),
			},
		}
	}
	return routes
}
