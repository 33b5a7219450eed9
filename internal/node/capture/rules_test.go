package capture

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"isthmus.dev/isthmus/internal/node/cgroup"
)

var update = flag.Bool("update", false, "write the rules to testdata")

// TestRules compares the whole table, as text, with testdata/rules.txt.
func TestRules(t *testing.T) {
	r := Rules{
		Envoy: cgroup.ID{Level: 2, Number: 77}, DNSPort: 15053,
		ExcludeOutboundPorts: []uint16{3306}, ExcludeInboundPorts: []uint16{22},
		ExcludeOutboundCIDRs: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::/32"),
		},
	}
	var b strings.Builder
	for _, c := range append(chains(r), frames("out-7", "eth0")) {
		fmt.Fprintf(&b, "chain %s: type %s, hook %d, priority %d, policy %s, device %q\n",
			c.name, c.kind, *c.hook, *c.priority, policyText(c.policy), c.device)
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "  %s\n", ruleText(t, rule))
		}
	}
	if *update {
		if err := os.WriteFile("testdata/rules.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("testdata/rules.txt:%d: got\n%s\nwant\n%s", i+1,
				strings.Join(got[min(i, len(got)):min(i+1, len(got))], ""), line)
		}
	}
	if len(got) != len(strings.Split(string(want), "\n")) {
		t.Errorf("%d lines, want %d", len(got), len(strings.Split(string(want), "\n")))
	}
}

// TestGuardsDropByDefault: what no rule of a guard names is dropped, and every guard ends in a refusal of its own.
func TestGuardsDropByDefault(t *testing.T) {
	guards := 0
	for _, c := range chains(Rules{}) {
		if !strings.HasPrefix(c.name, "guard-") {
			continue
		}
		guards++
		last := ruleText(t, c.rules[len(c.rules)-1])
		if c.policy != nftables.ChainPolicyDrop || last != "reject icmpx 3" {
			t.Errorf("%s: policy %s, last rule %s", c.name, policyText(c.policy), last)
		}
	}
	if guards != 2 {
		t.Errorf("%d guards", guards)
	}
}

func policyText(p nftables.ChainPolicy) string {
	return map[nftables.ChainPolicy]string{nftables.ChainPolicyDrop: "drop", nftables.ChainPolicyAccept: "accept"}[p]
}

// ruleText writes a rule much as `nft list ruleset` does, with numbers where nft has names.
func ruleText(t *testing.T, r rule) string {
	t.Helper()
	var out []string
	for _, e := range r {
		out = append(out, exprText(t, e))
	}
	return strings.Join(out, " ")
}

func exprText(t *testing.T, e expr.Any) string {
	t.Helper()
	switch e := e.(type) {
	case *expr.Meta:
		return map[expr.MetaKey]string{
			expr.MetaKeyMARK: "mark", expr.MetaKeyOIFNAME: "oifname", expr.MetaKeyIIFNAME: "iifname",
			expr.MetaKeyL4PROTO: "l4proto", expr.MetaKeyNFPROTO: "nfproto", expr.MetaKeySKUID: "skuid",
			expr.MetaKeyRTCLASSID: "rtclassid",
		}[e.Key]
	case *expr.Payload:
		base := map[expr.PayloadBase]string{
			expr.PayloadBaseNetworkHeader: "network", expr.PayloadBaseTransportHeader: "transport",
		}[e.Base]
		return fmt.Sprintf("@%s,%d,%d", base, e.Offset, e.Len)
	case *expr.Cmp:
		return map[expr.CmpOp]string{
			expr.CmpOpEq: "==", expr.CmpOpNeq: "!=",
			expr.CmpOpGte: ">=",
		}[e.Op] + " " + dataText(e.Data)
	case *expr.Bitwise:
		return "& " + dataText(e.Mask)
	case *expr.Socket:
		if e.Key == expr.SocketKeyCgroupv2 {
			return fmt.Sprintf("socket cgroup level %d", e.Level)
		}
		return "socket mark"
	case *expr.Ct:
		return map[expr.CtKey]string{expr.CtKeySTATUS: "ct status", expr.CtKeySTATE: "ct state"}[e.Key]
	case *expr.Fib:
		return "fib saddr type"
	case *expr.Notrack:
		return "notrack"
	case *expr.Verdict:
		return map[expr.VerdictKind]string{expr.VerdictDrop: "drop", expr.VerdictAccept: "accept"}[e.Kind]
	case *expr.Immediate:
		return fmt.Sprintf("port %d", binary.BigEndian.Uint16(e.Data))
	case *expr.Redir:
		return "redirect"
	case *expr.Reject:
		if e.Type == 1 {
			return "reject tcp reset"
		}
		return fmt.Sprintf("reject icmpx %d", e.Code)
	}
	t.Fatalf("no text for %T", e)
	return ""
}

// dataText is text for an interface's name and hexadecimal digits for all else.
func dataText(b []byte) string {
	if name := strings.TrimRight(string(b), "\x00"); len(b) == 16 && name == "lo" {
		return name
	}
	return fmt.Sprintf("%x", b)
}
