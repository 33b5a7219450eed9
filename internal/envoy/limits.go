package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// How long things may take. A stream lives as long as both ends want it, silent or not: what Envoy would end by itself
// (a silent stream after 5 minutes, an answer after 15 seconds, a silent connection after an hour) has no limit here.
// That the other end is gone is found by keepaliveOptions.

// noLimit is said wherever Envoy has a limit by default.
func noLimit() *durationpb.Duration { return millis(0) }

const (
	headersTimeout = 10_000 // ms for the whole head of a request, so that nobody holds a place by sending slowly
)

// How long a connection that carries nothing and that only Envoy keeps, to a server, is kept. A program closes such
// connections as it sees fit, often after a few seconds, and a request that is just being sent then is lost: it may
// have been begun. So Envoy closes its own first. The Envoys at the other ends of the mesh's connections keep them
// without a limit.
const (
	pooledIdle  = 60_000 // ms
	programIdle = 200    // ms; to a program
)

// pool is how long connections are kept that Envoy takes for one request after the other, in ms.
type pool struct {
	idle int64 // without a request
	life int64 // for new requests; 0 is as long as there are any
}

var toProgram = pool{idle: programIdle}

// toEnvoy bounds the life of connections in mutual TLS: both ends were checked when it began, and each renews its
// certificate at half its life. After as long again nothing new is sent on it, so that no request relies on a
// certificate that has run out. What is under way goes on.
func (b *builder) toEnvoy() pool {
	return pool{idle: pooledIdle, life: max(b.view.CertificateTTL.Milliseconds()/2, 1000)}
}

// What a head may hold: as much as Envoy and so Istio allow for who calls, and a little more at the proxies behind the
// first, which see what that one added.
const (
	maxHeaders     = 100
	maxHeadersKiB  = 60
	addedHeaders   = 20
	addedHeaderKiB = 4
)

// behindEnvoys is for a connection manager whose callers are Envoys. These read at once what has been sent to them, so
// that a connection that ends need not wait for that: each proxy on the way would add its second to a cut. What they
// say to each other is removed by a filter (fold, boundary), behind the one that notes attempts.
func behindEnvoys(m *hcmv3.HttpConnectionManager) *hcmv3.HttpConnectionManager {
	m.CommonHttpProtocolOptions.MaxHeadersCount = u32(maxHeaders + addedHeaders)
	m.MaxRequestHeadersKb = u32(maxHeadersKiB + addedHeaderKiB)
	m.DelayedCloseTimeout = millis(250)
	m.Http2ProtocolOptions = pooledHTTP2Options()
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{early(renameUpgrade...)}
	return m
}

// http1Options: trailers pass, HTTP/1.0 is served (nginx's proxy_pass and ab speak it), and offers of other protocols
// that are no upgrades are ignored. A request of HTTP/1.0 that names no host is for the one given.
func http1Options(host string) *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10: true, DefaultHostForHttp_10: host, EnableTrailers: true, IgnoreHttp_11Upgrade: mereOffers,
	}
}

var toHTTP1 = &corev3.Http1ProtocolOptions{EnableTrailers: true}
