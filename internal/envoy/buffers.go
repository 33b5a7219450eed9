package envoy

import corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

// What one connection may have Envoy keep for it, in bytes: who sends much to somebody who reads nothing, or reads
// nothing of what it asked for, must not fill the memory that its neighbours need. Envoy's own bounds are 1 MiB for a
// connection and 16 MiB for a stream of HTTP/2.
const (
	bufferLimit      = 32 << 10
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20   // of a program's own connection
	retriedBody      = 256 << 10 // of a request that another server may have to be asked
)

// Envoy lets many calls share one connection of HTTP/2 to a server. It carries so few at a time that all of them have room in
// its window: a call that nobody reads would else, with three more, hold up the calls of others. More calls, more connections.
const (
	pooledStreams = 16
	pooledWindow  = pooledStreams * streamWindow
)

// http2Options bound the streams of one HTTP/2 connection of a program, and let it carry upgrades (RFC 8441).
func http2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(connectionWindow),
		AllowConnect: true,
	}
}

// pooledHTTP2Options are for connections that Envoy opens, at both of their ends.
func pooledHTTP2Options() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: u32(streamWindow), InitialConnectionWindowSize: u32(pooledWindow),
		MaxConcurrentStreams: u32(pooledStreams), AllowConnect: true,
	}
}
