package envoy

import corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

// Buffer limits per connection, in bytes. A client that sends much to a server that does not read, or does not read its
// own responses, must not use up the memory of others. Envoy's defaults are 1 MiB per connection and 16 MiB per HTTP/2
// stream.
const (
	bufferLimit   = 32 << 10
	streamWindow  = 128 << 10 // of HTTP/2, in each direction; the sending Envoy buffers as much as the receiving one
	programWindow = 1 << 20   // of an HTTP/2 connection that a program opens
	retriedBody   = 256 << 10 // of a request that may be retried
)

// pooledStreams limits the concurrent streams of a pooled HTTP/2 connection. All of them fit into the connection's
// window, so that unread streams do not block others. More calls use more connections.
const pooledStreams = 16

// http2Options limits the streams of connections that programs open, and enables upgrades (RFC 8441).
func http2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(programWindow),
		AllowConnect: true,
	}
}

// pooledHTTP2Options is for both ends of connections that Envoy opens.
func pooledHTTP2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(pooledStreams * streamWindow),
		MaxConcurrentStreams: u32(pooledStreams), AllowConnect: true,
	}
}
