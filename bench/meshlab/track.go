package meshlab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// Virtual is an address that leads nowhere; where Capture was called, to the same port of the namespace's own loopback.
const Virtual = "240.240.255.1"

// Capture does to a namespace what our capture does, as far as it costs: the kernel tracks every connection, and those
// to Virtual are redirected. Hand-written proxies then bear what ours bear. Nothing is refused.
func (p Place) Capture() error {
	return lab.Inside(p.Namespace, func() error {
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("talk to nftables in %s: %w", p.Namespace, err)
		}
		table := conn.AddTable(&nftables.Table{Name: "captured", Family: nftables.TableFamilyIPv4})
		chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority,
			rule ...expr.Any,
		) {
			c := conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority})
			conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: rule})
		}
		chain("redirect-out", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest,
			append(toVirtual(), &expr.Redir{})...)
		chain("redirect-in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest,
			append(toVirtual(), &expr.Redir{})...)
		chain("guard-out", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter,
			established()...)
		chain("guard-in", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter,
			established()...)
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("capture in %s: %w", p.Namespace, err)
		}
		return nil
	})
}

// toVirtual matches TCP to Virtual.
func toVirtual() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // destination address
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{240, 240, 255, 1}},
	}
}

// established accepts what belongs to a connection that is known.
func established() []expr.Any {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}
