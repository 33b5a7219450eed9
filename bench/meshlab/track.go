package meshlab

import (
	"fmt"

	"github.com/google/nftables"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// Track makes the kernel follow every connection of a namespace, as it must where traffic is captured: hand-written
// proxies then bear what ours bear. Nothing is redirected or refused.
func (p Place) Track() error {
	return lab.Inside(p.Namespace, func() error {
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("talk to nftables in %s: %w", p.Namespace, err)
		}
		table := conn.AddTable(&nftables.Table{Name: "tracked", Family: nftables.TableFamilyINet})
		for _, c := range []nftables.Chain{
			{Name: "nat-out", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest},
			{Name: "nat-in", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest},
			{Name: "out", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter},
			{Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter},
		} {
			c.Table = table
			conn.AddChain(&c)
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("track the connections of %s: %w", p.Namespace, err)
		}
		return nil
	})
}
