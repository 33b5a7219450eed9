package envoy

import corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

// What one connection may have Envoy keep for it, in bytes: who sends much to somebody who reads nothing, or reads
// nothing of what it asked for, must not fill the memory that its neighbours need. Envoy's own bounds are 1 MiB for a
// connection and 16 MiB for a stream of HTTP/2.
const (
	bufferLimit   = 32 << 10
	streamWindow  = 128 << 10 // of HTTP/2, on each way; an Envoy that writes keeps as much as the one that reads
	programWindow = 1 << 20   // of a connection of HTTP/2 that a program opens
	retriedBody   = 256 << 10 // of a request that another server may have to be asked
)

// pooledStreams is how many calls at a time share one connection of HTTP/2 to a server. They are so few that all of
// them have room in its window: calls that nobody reads would else hold up others. More calls, more connections.
const pooledStreams = 16

// http2Options bound the streams of a connection that a program opens, and let it carry upgrades (RFC 8441).
func http2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(programWindow),
		AllowConnect: true,
	}
}

// pooledHTTP2Options are for connections that Envoy opens, at both of their ends.
func pooledHTTP2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(pooledStreams * streamWindow),
		MaxConcurrentStreams: u32(pooledStreams), AllowConnect: true,
	}
}
