package capture

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"

	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/wellknown"
)

// The wire of sock_diag(7).
const (
	sockDiagByFamily = 20
	requestSize      = 56
	answerSize       = 72
	attrCgroup       = 21
	listening        = 1 << 10
)

// CheckPorts returns an error when another program listens at Envoy's addresses in the namespace at path, so that Envoy
// could not bind there.
func CheckPorts(path string, envoy cgroup.ID) error {
	return dump(path, listening, func(b []byte) error { return checkListener(b, envoy) })
}

// checkListener parses one listening socket (struct inet_diag_msg) and returns an error when it is another program's at
// an address of Envoy's.
func checkListener(b []byte, envoy cgroup.ID) error {
	at, user := endOf(b, 4, 8), binary.NativeEndian.Uint32(b[64:])
	addr, port := at.Addr(), at.Port()
	mine := port == wellknown.InboundPort || port == wellknown.OutboundPort &&
		(addr.IsUnspecified() || addr.IsLoopback())
	if !mine {
		return nil
	}
	attrs, err := netlink.UnmarshalAttributes(b[answerSize:])
	if err != nil {
		return fmt.Errorf("read who listens: %w", err)
	}
	group := slices.IndexFunc(attrs, func(a netlink.Attribute) bool { return a.Type == attrCgroup && len(a.Data) == 8 })
	if group < 0 || binary.NativeEndian.Uint64(attrs[group].Data) == envoy.Number {
		return nil // Envoy's, or a kernel that does not tell
	}
	return fmt.Errorf("a program of user %d listens at %s, in Envoy's place: end it, or have it listen elsewhere",
		user, at)
}
