package capture

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/wellknown"
)

// rule is the expressions of one nftables rule: conditions, then a verdict.
type rule = []expr.Any

func when(parts ...rule) rule { return slices.Concat(parts...) }

func equal(load expr.Any, data []byte) rule {
	return rule{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

// maskedEqual: the loaded value equals data under the mask.
func maskedEqual(load expr.Any, mask, data []byte) rule {
	return rule{
		load,
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// markIs: the packet's mark is m.
func markIs(m uint32) rule {
	return equal(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, binaryutil.NativeEndian.PutUint32(m))
}

// out and in: the packet leaves or enters by the named interface.
func out(name string) rule {
	return equal(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, ifname(name))
}

func in(name string) rule {
	return equal(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, ifname(name))
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// proto: the transport protocol is p.
func proto(p byte) rule {
	return equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{p})
}

func tcp() rule { return proto(unix.IPPROTO_TCP) }

func udp() rule { return proto(unix.IPPROTO_UDP) }

// sport: the source port (of TCP or UDP, tested before) is p.
func sport(p uint16) rule {
	return equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		binaryutil.BigEndian.PutUint16(p))
}

// dport: the destination port (of TCP or UDP, tested before) is p.
func dport(p uint16) rule {
	return equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		binaryutil.BigEndian.PutUint16(p))
}

// daddr: the destination address is in the prefix.
func daddr(p netip.Prefix) rule {
	p = p.Masked()
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if p.Addr().Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	return when(
		equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{family}),
		maskedEqual(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
			net.CIDRMask(p.Bits(), int(length)*8), p.Addr().AsSlice()))
}

// envoys: Envoy opened the socket that sends or receives the packet. A mark would not prove that, since a program with
// CAP_NET_RAW can set one.
func (r Rules) envoys() rule {
	return equal(&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: r.Envoy.Level, Register: 1},
		binaryutil.NativeEndian.PutUint64(r.Envoy.Number))
}

// toEnvoys: the packet belongs to a TCP connection that Envoy made.
func (r Rules) toEnvoys() rule {
	return when(tcp(), eitherMark(&expr.Socket{Key: expr.SocketKeyMark, Register: 1}), r.envoys())
}

// fullSocket: there is a socket, as opposed to one in TIME_WAIT or a connection request.
func fullSocket() rule { return isPresent(&expr.Socket{Key: expr.SocketKeyMark, Register: 1}) }

// hasFile: a program holds the socket that sent the packet. The kernel's own sockets have no file and so no user.
func hasFile() rule { return isPresent(&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}) }

// program: a program sent the packet, as opposed to the kernel, which answers and opens connections.
func program() rule { return when(hasFile(), fullSocket()) }

// routed: the packet has a route and so came through IP. Frames that a program writes have none.
func routed() rule { return isPresent(&expr.Meta{Key: expr.MetaKeyRTCLASSID, Register: 1}) }

// isPresent: the value could be loaded, whatever it is.
func isPresent(load expr.Any) rule {
	return rule{load, &expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: make([]byte, 4)}}
}

// foreignSource: the packet's source address is not one of this namespace.
func foreignSource() rule {
	return rule{
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func eitherMark(load expr.Any) rule {
	const differ = uint32(wellknown.SocketMark ^ wellknown.InsideMark)
	return maskedEqual(load, binaryutil.NativeEndian.PutUint32(^differ),
		binaryutil.NativeEndian.PutUint32(wellknown.SocketMark&^differ))
}

// isReset: the TCP segment ends its connection.
func isReset() rule {
	return maskedEqual(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		[]byte{6},
		[]byte{4})
}

func icmpType(t byte) rule {
	return equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, []byte{t})
}

// redirected: our NAT rules changed the connection's destination (IPS_DST_NAT).
func redirected() rule { return ctBits(expr.CtKeySTATUS, 1<<5) }

// replying: the packet belongs to a connection that was let through, or reports an error about one.
func replying() rule {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// invalid: connection tracking cannot assign the packet, as one that comes late. Refusing it aloud could end the
// connection that it belonged to.
func invalid() rule { return ctBits(expr.CtKeySTATE, expr.CtStateBitINVALID) }

func ctBits(key expr.CtKey, bits uint32) rule {
	return rule{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func notrack() rule { return rule{&expr.Notrack{}} }

func drop() rule { return rule{&expr.Verdict{Kind: expr.VerdictDrop}} }

func accept() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }

func redirect(port uint16) rule {
	return rule{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

// reject answers with ICMP "administratively prohibited", so that the caller fails at once.
func reject() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// reset ends a TCP connection as the other side would.
func reset() rule { return rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
