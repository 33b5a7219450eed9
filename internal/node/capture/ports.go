package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/netns"
)

// The wire of sock_diag(7).
const (
	sockDiagByFamily = 20
	requestSize      = 56
	answerSize       = 72
	attrCgroup       = 21
	listening        = 1 << 10
)

// Taken says who listens in Envoy's place in the namespace at path, if anybody does: Envoy could not bind there.
func Taken(path string, envoy cgroup.ID) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return fmt.Errorf("ask who listens in %s: %w", path, err)
	}
	defer c.Close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, requestSize)
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], listening)
		answers, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request,
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a kernel that does not tell
		}
		if err != nil {
			return fmt.Errorf("ask who listens in %s: %w", path, err)
		}
		for _, a := range answers {
			if err := inTheWay(a.Data, envoy); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTheWay reads one listening socket (struct inet_diag_msg), and says whether it is another's at an address of
// Envoy's.
func inTheWay(b []byte, envoy cgroup.ID) error {
	if len(b) < answerSize {
		return nil
	}
	port, user := binary.BigEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[64:])
	addr := netip.AddrFrom4([4]byte(b[8:]))
	if b[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(b[8:])).Unmap()
	}
	mine := port == agentapi.InboundPort || port == agentapi.OutboundPort && (addr.IsUnspecified() || addr.IsLoopback())
	if !mine {
		return nil
	}
	attrs, err := netlink.UnmarshalAttributes(b[answerSize:])
	if err != nil {
		return fmt.Errorf("read who listens: %w", err)
	}
	at := slices.IndexFunc(attrs, func(a netlink.Attribute) bool { return a.Type == attrCgroup && len(a.Data) == 8 })
	if at < 0 || binary.NativeEndian.Uint64(attrs[at].Data) == envoy.Number {
		return nil // Envoy's, or a kernel that does not tell
	}
	return fmt.Errorf("a program of user %d listens at %s, in Envoy's place: end it, or have it listen elsewhere", user,
		netip.AddrPortFrom(addr, port))
}
