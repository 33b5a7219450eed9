//go:build e2e

package node

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestHelperRaw is a program of a workload, of user 1000 with CAP_NET_RAW, which does what its standard input says, an
// order a line, when startRaw starts it.
func TestHelperRaw(t *testing.T) {
	if os.Getenv("ISTHMUS_TEST_RAW") == "" {
		return
	}
	for {
		var what string
		if _, err := fmt.Scanln(&what); err != nil {
			os.Exit(0)
		}
		words := strings.Split(what, ",")
		said, err := rawOrders[words[0]](words[1:])
		if err != nil {
			said = "failed: " + err.Error()
		}
		fmt.Println(said)
	}
}

func startRaw(t *testing.T, ns string) *program {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-t-raw")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return startProgramWith(t, copyOf(t,
		filepath.Join(dir, "program")), ns, "TestHelperRaw", []string{"ISTHMUS_TEST_RAW=1"}, &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 1000, Gid: 1000}, AmbientCaps: []uintptr{unix.CAP_NET_RAW},
	})
}

// rawOrders are what the program can be told to do. A mark, where there is one, comes last.
var rawOrders = map[string]func([]string) (string, error){
	// tcp,<address>,<mark>: say the secret on a connection
	"tcp": func(w []string) (string, error) {
		d := net.Dialer{Timeout: time.Second, Control: mark(number(w[1]))}
		c, err := d.Dial("tcp", w[0])
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		if _, err := io.WriteString(c, theSecret); err != nil {
			return "", err
		}
		b, _ := io.ReadAll(c)
		return "heard " + string(b), nil
	},
	// tcpfrom,<address>,<source>: the same from an address that is another's
	"tcpfrom": func(w []string) (string, error) {
		d := net.Dialer{
			Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(w[1])),
			Control: transparent,
		}
		c, err := d.Dial("tcp", w[0])
		if err != nil {
			return "", err
		}
		return "connected", c.Close()
	},
	// udpfrom,<address>,<source>,<mark>
	"udpfrom": func(w []string) (string, error) {
		d := net.Dialer{
			LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(w[1])),
			Control: func(n, a string, c syscall.RawConn) error {
				return errors.Join(transparent(n, a, c), mark(number(w[2]))(n, a, c))
			},
		}
		return sendUDP(d, w[0])
	},
	// udp,<address>,<mark>
	"udp": func(w []string) (string, error) { return sendUDP(net.Dialer{Control: mark(number(w[1]))}, w[0]) },
	// bound,<address>,<mark>: from a socket that is bound to a device
	"bound": func(w []string) (string, error) {
		return sendUDP(net.Dialer{Control: func(n, a string, c syscall.RawConn) (err error) {
			return errors.Join(mark(number(w[1]))(n, a, c),
				c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "eth0") }), err)
		}}, w[0])
	},
	// socket,<kind>,<protocol>,<address>,<flags>,<mark>: send by a socket of any kind and protocol, connecting it where
	// it must be
	"socket": func(w []string) (string, error) {
		to, family, sa := netip.MustParseAddrPort(w[2]), unix.AF_INET, unix.Sockaddr(nil)
		if sa = (&unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte(to.Addr().AsSlice())}); to.Addr().Is6() {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		}
		fd, err := unix.Socket(family, number(w[0])|unix.SOCK_CLOEXEC, number(w[1]))
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, number(w[4])),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200_000})); err != nil {
			return "", err
		}
		if number(w[0]) != unix.SOCK_DGRAM && number(w[3]) == 0 {
			if err := unix.Connect(fd, sa); err != nil {
				return "", err
			}
			return "sent", unix.Send(fd, []byte(theSecret), 0)
		}
		return "sent", unix.Sendto(fd, []byte(theSecret), number(w[3]), sa)
	},
	// listen,<port>,<mark>: greet who connects
	"listen": func(w []string) (string, error) {
		lc := net.ListenConfig{Control: mark(number(w[1]))}
		l, err := lc.Listen(context.Background(), "tcp", ":"+w[0])
		if err != nil {
			return "", err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, theSecret)
				c.Close()
			}
		}()
		return "listening", nil
	},
	// ping,<address>,<mark>: an echo request of a ping socket
	"ping": func(w []string) (string, error) {
		to := netip.MustParseAddr(w[0])
		family, protocol, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
		if to.Is6() {
			family, protocol, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		}
		return sendTo(family, unix.SOCK_DGRAM, protocol, to, number(w[1]),
			append([]byte{kind, 0, 0, 0, 0, 1, 0, 1}, theSecret...))
	},
	// ip,<address>,<protocol>,<hex of what stands before the secret>,<mark>: a packet whose IP header the kernel writes
	"ip": func(w []string) (string, error) {
		to := netip.MustParseAddr(w[0])
		family := unix.AF_INET
		if to.Is6() {
			family = unix.AF_INET6
		}
		head, err := hex.DecodeString(w[2])
		if err != nil {
			return "", err
		}
		return sendTo(family, unix.SOCK_RAW, number(w[1]), to, number(w[3]), append(head, theSecret...))
	},
	// packet,<hex of a whole IP packet>,<mark>
	"packet": func(w []string) (string, error) {
		b, err := hex.DecodeString(w[0])
		if err != nil {
			return "", err
		}
		if b[0]>>4 == 6 {
			return sendTo(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW, netip.AddrFrom16([16]byte(b[24:40])),
				number(w[1]), b)
		}
		return sendTo(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, netip.AddrFrom4([4]byte(b[16:20])), number(w[1]),
			b)
	},
	// frame,<device>,<hex of a frame>,<mark>,<way>: written onto a device; way is plain, or bypass for past the queue
	"frame": func(w []string) (string, error) {
		b, err := hex.DecodeString(w[1])
		if err != nil {
			return "", err
		}
		link, err := net.InterfaceByName(w[0])
		if err != nil {
			return "", err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if w[3] == "bypass" {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return "", err
			}
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, number(w[2])); err != nil {
			return "", err
		}
		to := &unix.SockaddrLinklayer{
			Ifindex: link.Index, Protocol: bits.ReverseBytes16(binary.BigEndian.Uint16(b[12:])), Halen: 6,
		}
		copy(to.Addr[:], b)
		return "sent", unix.Sendto(fd, b, 0, to)
	},
	// xdp,<device>,<queue>,<hex of a frame>: put into a device's queue by an AF_XDP socket
	"xdp": func(w []string) (string, error) {
		b, err := hex.DecodeString(w[2])
		if err != nil {
			return "", err
		}
		link, err := net.InterfaceByName(w[0])
		if err != nil {
			return "", err
		}
		return sendXDP(link.Index, number(w[1]), b)
	},
}

// theSecret is what must not leave.
const theSecret = "the-secret-of-the-workload"

func number(text string) int {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

func transparent(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	}), err)
}

func sendUDP(d net.Dialer, to string) (string, error) {
	c, err := d.Dial("udp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_, err = io.WriteString(c, theSecret)
	return "sent", err
}

func sendTo(family, kind, protocol int, to netip.Addr, m int, b []byte) (string, error) {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, m); err != nil {
		return "", err
	}
	var dst unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])}
	if to.Is6() {
		six := &unix.SockaddrInet6{Addr: to.As16()}
		if to.IsMulticast() || to.IsLinkLocalUnicast() {
			link, err := net.InterfaceByName("eth0")
			if err != nil {
				return "", err
			}
			six.ZoneId = uint32(link.Index)
		}
		dst = six
	}
	return "sent", unix.Sendto(fd, b, 0, dst)
}

// sendXDP sends one frame from a memory of one page of frames, copied by the kernel.
func sendXDP(link, queue int, frame []byte) (string, error) {
	const page = 4096
	mem, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return "", err
	}
	copy(mem, frame)
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	defer unix.Munmap(mem)
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&mem[0]))), Len: page, Size: page}
	if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0); e != 0 {
		return "", fmt.Errorf("register memory: %w", e)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, 2); err != nil {
			return "", fmt.Errorf("make a ring: %w", err)
		}
	}
	var offsets unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(offsets))
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&offsets)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		return "", fmt.Errorf("ask for offsets: %w", e)
	}
	ring, err := unix.Mmap(fd, unix.XDP_PGOFF_TX_RING, int(offsets.Tx.Desc)+2*16, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return "", fmt.Errorf("map the ring: %w", err)
	}
	defer unix.Munmap(ring)
	if err := unix.Bind(fd,
		&unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(link), QueueID: uint32(queue)}); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	binary.NativeEndian.PutUint64(ring[offsets.Tx.Desc:], 0)
	binary.NativeEndian.PutUint32(ring[offsets.Tx.Desc+8:], uint32(len(frame)))
	binary.NativeEndian.PutUint32(ring[offsets.Tx.Producer:], 1)
	err = unix.Sendto(fd, nil, unix.MSG_DONTWAIT, nil)
	waittest.Pace(10 * time.Millisecond) // the kernel reads the ring when it likes
	return "sent", err
}

// testGroup is the control group of what plays Envoy's part.
const testGroup = "isthmus-t-group"

// envoyGroup makes it for one test.
func envoyGroup(t *testing.T) cgroup.ID {
	t.Helper()
	g := cgroup.New(testGroup)
	must(t, g.Make())
	t.Cleanup(func() {
		must(t, g.Remove())
		g.Close()
	})
	return g.ID
}

// asEnvoy runs fn in a namespace; the sockets that it opens are Envoy's.
func asEnvoy(ns string, fn func() error) error {
	return cgrouptest.Inside(testGroup, func() error { return netns.Do(ns, fn) })
}
