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

// What an endpoint could not take goes to another one. Any request does so while no server has begun it; one with a
// safe method (RFC 9110 §9.2.1) does so as long as no answer has begun, but no more than twice, since it may be what
// ends its servers.

// mostAttempts is how many servers may begin a request, and mostRetries how often one that none has begun is sent
// again.
const (
	mostAttempts = 3
	mostRetries  = 8
)

// A caller's Envoy numbers its attempts at a request, and tells no other mesh. The server's, which alone knows whether
// its program may have begun it, notes the number before it takes such headers away.
const (
	attemptHeader = "x-envoy-attempt-count"
	attemptState  = "isthmus.attempt"
)

// lateAttempt holds for the last attempt that may be begun, and for those after it. One before it may not have been
// begun: then a request is given up earlier than it need be. What state holds are bytes.
var lateAttempt = when(
	`size(filter_state["` + attemptState + `"]) > 0 && !(filter_state["` + attemptState + `"] in [b"1", b"2"])`,
)

// noteAttempt is for lateAttempt.
var noteAttempt = note(attemptState, "%REQ("+attemptHeader+")%")

// Limits of connecting within the mesh. Whether a host answers at all shows within 3 seconds: the first SYN and one
// more (TCP_SYNCNT 1). Its handshake may take longer, since two thousand callers at once keep a busy processor at it
// for many seconds.
const connectTimeout = 30_000 // ms

// synOnceMore has the kernel give up on a host that does not answer after 1 + 2 seconds (tcp(7)).
func synOnceMore() *corev3.SocketOption { return socketOption(6, 7, 1) }

// inMesh are a cluster's limits towards Envoys of this mesh: how long connecting may take, and when a host is left for
// a while. Only one that cannot be connected to is: it may cost each call seconds, whereas a program that is away costs
// milliseconds, and would still be left when it is back and the next one is away. The last host is never left, since to
// try it is better than to try none. Of many requests under way at most four fifths may be retries, so that a service
// that is down is not asked much more often than one that is well.
func inMesh(c *clusterv3.Cluster) *clusterv3.Cluster {
	c.ConnectTimeout = millis(connectTimeout)
	c.UpstreamBindConfig.SocketOptions = append(c.UpstreamBindConfig.SocketOptions, synOnceMore())
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

// retried are the routes that lead where these lead, with retries: each for requests with safe methods, then for
// others. With words the answers come from Envoys of a mesh, whose word of what they could not reach counts; an
// application's would not.
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
		} else { // nobody says whether it was begun
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

// retryPolicy asks others than those who have failed, as far as there are any, after up to 10, 30, 70, 150 and then 250
// ms, about 0.6 s in all: a call may meet one endpoint before it is back and the next one when it has just gone.
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

// retriedElsewhere are the routes to the sources of an import, with retries: first at another endpoint of the same
// priority, if there is one, then at the next priority.
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
