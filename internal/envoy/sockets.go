package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"isthmus.dev/isthmus/internal/model"
)

// inside returns a socket address in a network namespace. If netns is empty, it is the proxy's own.
func inside(netns, host string, port uint32) *corev3.Address {
	a := socketAddress(host, port)
	a.NetworkNamespaceFilepath = netns
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: a}}
}

func socketAddress(host string, port uint32) *corev3.SocketAddress {
	return &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}
}

// socketMark sets SO_MARK (SOL_SOCKET 1, SO_MARK 36; socket(7)), which tells capture where a connection leads. That it
// belongs to Envoy, capture knows from the control group.
func socketMark(mark int64) *corev3.SocketOption { return socketOption(1, 36, mark) }

// keepaliveOptions make the kernel close a connection whose other end has disappeared, within 15 seconds: SO_KEEPALIVE,
// TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT (socket(7), tcp(7)). They do not detect it while the server's data is
// unacknowledged; the waiting client does.
func keepaliveOptions() []*corev3.SocketOption {
	return []*corev3.SocketOption{
		socketOption(1, 9, 1),
		socketOption(6, 4, 5),
		socketOption(6, 5, 5),
		socketOption(6, 6, 2),
	}
}

// callerOptions also detect it while data is in flight to the server: TCP_USER_TIMEOUT, which also limits keepalive.
// With it, the kernel also gives up on a peer that does not read for that long. A client may do that with a response,
// so only the caller's side uses it.
func callerOptions() []*corev3.SocketOption { return keepalive(5, 5, 15) }

// keepalive configures connections to servers: seconds of silence before the first keepalive probe, interval of probes,
// and total timeout.
func keepalive(idle, every, most int64) []*corev3.SocketOption {
	return []*corev3.SocketOption{
		socketOption(1, 9, 1),
		socketOption(6, 4, idle),
		socketOption(6, 5, every),
		socketOption(6, 18, most*1000),
	}
}

func socketOption(level, name, value int64) *corev3.SocketOption {
	return &corev3.SocketOption{
		Level: level,
		Name:  name,
		Value: &corev3.SocketOption_IntValue{IntValue: value},
		State: corev3.SocketOption_STATE_PREBIND,
	}
}

// dialFrom makes connections from a workload's network namespace or, if w is nil, the proxy's own.
func dialFrom(w *model.Workload, mark int64) *corev3.BindConfig {
	c := &corev3.BindConfig{SocketOptions: append(callerOptions(), socketMark(mark))}
	if w == nil || w.Netns == "" {
		return c
	}
	c.SourceAddress = inside(w.Netns, "0.0.0.0", 0).GetSocketAddress()
	if w.HasFamilyOf(netip.IPv6Unspecified()) {
		c.ExtraSourceAddresses = []*corev3.ExtraSourceAddress{{Address: inside(w.Netns, "::", 0).GetSocketAddress()}}
	}
	return c
}
