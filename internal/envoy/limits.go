package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Time limits. A stream lives as long as both ends want, silent or not: Envoy's defaults (a silent stream after 5
// minutes, a response after 15 seconds, a silent connection after an hour) are disabled. Dead peers are detected by
// keepaliveOptions.

// noLimit disables a default timeout of Envoy.
func noLimit() *durationpb.Duration { return millis(0) }

const (
	headersTimeout = 10_000 // ms for all headers of a request, so that slow senders do not hold resources
)

// Idle timeouts of pooled connections to servers. Programs close idle connections as they like, often after a few
// seconds; a request sent just then is lost, because it may have been started. So Envoy closes its connection first. At
// the other ends of the mesh's own connections, Envoys have no idle timeout.
const (
	pooledIdle  = 60_000 // ms
	programIdle = 200    // ms; to programs
)

// pool is how long pooled connections are kept, in ms.
type pool struct {
	idle int64 // without a request
	life int64 // accepting new requests; 0 for no limit
}

var toProgram = pool{idle: programIdle}

// toEnvoy limits the life of mutual TLS connections. Both ends are verified at the start, and certificates are renewed
// at half their lifetime. After that much time again no new requests use the connection, so that none relies on an
// expired certificate. Requests in progress continue.
func (b *builder) toEnvoy() pool {
	return pool{idle: pooledIdle, life: max(b.view.CertificateTTL.Milliseconds()/2, 1000)}
}

// Limits of request headers: Envoy's (and Istio's) defaults for callers, and slightly more for proxies behind the first
// one, which adds headers.
const (
	maxHeaders     = 100
	maxHeadersKiB  = 60
	addedHeaders   = 20
	addedHeaderKiB = 4
)

// behindEnvoys is for connection managers whose callers are Envoys. Those read immediately, so a closing connection
// need not wait for them to do so; otherwise each proxy on the path would add a second to every cut.
func behindEnvoys(m *hcmv3.HttpConnectionManager) *hcmv3.HttpConnectionManager {
	m.CommonHttpProtocolOptions.MaxHeadersCount = u32(maxHeaders + addedHeaders)
	m.MaxRequestHeadersKb = u32(maxHeadersKiB + addedHeaderKiB)
	m.DelayedCloseTimeout = millis(250)
	m.Http2ProtocolOptions = pooledHTTP2Options()
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{early(renameUpgrade...)}
	return m
}

// http1Options enable trailers and HTTP/1.0 (used by nginx's proxy_pass and ab), and ignore protocol offers that are
// not upgrades. host is the default for HTTP/1.0 requests without Host.
func http1Options(host string) *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10: true, DefaultHostForHttp_10: host, EnableTrailers: true, IgnoreHttp_11Upgrade: ignoredUpgrades,
	}
}

var toHTTP1 = &corev3.Http1ProtocolOptions{EnableTrailers: true}
