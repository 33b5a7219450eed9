package capture

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
)

// rule is the expressions of one nftables rule: conditions, then a verdict.
type rule = []expr.Any

func when(parts ...rule) rule { return slices.Concat(parts...) }

func equal(load expr.Any, data []byte) rule {
	return rule{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

// masked: what is loaded is data under the mask.
func masked(load expr.Any, mask, data []byte) rule {
	return rule{
		load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// mark: the packet's mark is m.
func mark(m uint32) rule {
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
		masked(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
			net.CIDRMask(p.Bits(), int(length)*8), p.Addr().AsSlice()))
}

// ours: the packet has one of the two marks of Envoy's and the agent's connections.
func ours() rule { return eitherMark(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}) }

// toOurs: the packet belongs to a TCP connection whose socket, here, has one of the two marks.
func toOurs() rule {
	return when(proto(unix.IPPROTO_TCP), eitherMark(&expr.Socket{Key: expr.SocketKeyMark, Register: 1}))
}

func eitherMark(load expr.Any) rule {
	const differ = uint32(agentapi.SocketMark ^ agentapi.InsideMark)
	return masked(load, binaryutil.NativeEndian.PutUint32(^differ), binaryutil.NativeEndian.PutUint32(agentapi.SocketMark&^differ))
}

// redirected: our NAT rules changed the connection's destination (IPS_DST_NAT).
func redirected() rule { return ctBits(expr.CtKeySTATUS, 1<<5) }

// replying: the packet answers a connection that was let through, or reports an error about one.
func replying() rule {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// invalid: connection tracking can make nothing of the packet, as of one that comes late. To refuse it aloud could end the
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

func untracked() rule { return rule{&expr.Notrack{}} }

func drop() rule { return rule{&expr.Verdict{Kind: expr.VerdictDrop}} }

func accept() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }

func redirect(port uint16) rule {
	return rule{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

// reject answers with ICMP "administratively prohibited", so that the caller learns it at once.
func reject() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// reset ends a TCP connection as the other side would.
func reset() rule { return rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }
