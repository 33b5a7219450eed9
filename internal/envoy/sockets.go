package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"isthmus.dev/isthmus/internal/model"
)

// inside a network namespace; an empty one is the proxy's own.
func inside(netns, host string, port uint32) *corev3.Address {
	a := socketAddress(host, port)
	a.NetworkNamespaceFilepath = netns
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: a}}
}

func socketAddress(host string, port uint32) *corev3.SocketAddress {
	return &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}
}

// marked tells capture where a connection of Envoy's leads (SOL_SOCKET 1, SO_MARK 36; socket(7)). That it is Envoy's,
// capture knows by its control group.
func marked(mark int64) *corev3.SocketOption { return socketOption(1, 36, mark) }

// keepaliveOptions have the kernel end a connection whose other end is gone without a word, within 15 seconds:
// SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT (socket(7), tcp(7)). That a server has something on its way is
// no hindrance: its client, which waits, finds out.
func keepaliveOptions() []*corev3.SocketOption {
	return []*corev3.SocketOption{
		socketOption(1, 9, 1),
		socketOption(6, 4, 5),
		socketOption(6, 5, 5),
		socketOption(6, 6, 2),
	}
}

// callerOptions do so too while something is on its way to the server: TCP_USER_TIMEOUT, which bounds keepalive as
// well. The kernel then also takes for gone who takes nothing for so long, which a client may well do that has an
// answer to read at its leisure; so only callers have it.
func callerOptions() []*corev3.SocketOption { return keepalive(5, 5, 15) }

// keepalive of a connection to a server: after how many seconds of silence to ask, how often then, and when to give up.
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

// dialFrom makes connections from a workload's network namespace, or from the proxy's own.
func dialFrom(w *model.Workload, mark int64) *corev3.BindConfig {
	c := &corev3.BindConfig{SocketOptions: append(callerOptions(), marked(mark))}
	if w == nil || w.Netns == "" {
		return c
	}
	c.SourceAddress = inside(w.Netns, "0.0.0.0", 0).GetSocketAddress()
	if w.HasFamilyOf(netip.IPv6Unspecified()) {
		c.ExtraSourceAddresses = []*corev3.ExtraSourceAddress{{Address: inside(w.Netns, "::", 0).GetSocketAddress()}}
	}
	return c
}
