package store

import (
	"fmt"
	"net/netip"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// claims say whose the names and addresses of workloads are. What one node has, no other takes: who had it first keeps
// it until it gives it up or is revoked, also across a restart, for only workloads without a clash reach the state
// file.
type claims struct {
	names map[model.WorkloadID]string // node
	addrs map[netip.Addr]owner
}

type owner struct {
	node     string
	workload model.WorkloadID
}

func newClaims() claims {
	return claims{names: map[model.WorkloadID]string{}, addrs: map[netip.Addr]owner{}}
}

func idOf(w snapshot.Workload) model.WorkloadID {
	return model.WorkloadID{Namespace: w.Namespace, Name: w.Name}
}

// take claims what a node's workloads need, those first that it has already. It returns, in their order, the workloads
// that have all, and findings about the others, which have nothing.
func (c claims) take(node string, said, had []snapshot.Workload) (free []snapshot.Workload, clashes []finding.Finding) {
	old := make(map[model.WorkloadID]bool, len(had))
	for _, w := range had {
		old[idOf(w)] = true
	}
	own, refused := map[netip.Addr]snapshot.Workload{}, map[model.WorkloadID]*finding.Finding{}
	for _, older := range []bool{true, false} {
		for _, w := range said {
			if id := idOf(w); old[id] == older {
				if refused[id] = c.clash(node, w, own); refused[id] == nil {
					c.claim(node, w, own)
				}
			}
		}
	}
	for _, w := range said {
		if f := refused[idOf(w)]; f != nil {
			clashes = append(clashes, *f)
		} else {
			free = append(free, w)
		}
	}
	return free, clashes
}

func (c claims) claim(node string, w snapshot.Workload, own map[netip.Addr]snapshot.Workload) {
	c.names[idOf(w)] = node
	for _, a := range w.Addresses {
		own[a] = w
		c.addrs[a] = owner{node, idOf(w)}
	}
}

// give takes names and addresses from whoever has them.
func (c claims) give(node string, workloads []snapshot.Workload) {
	own := map[netip.Addr]snapshot.Workload{}
	for _, w := range workloads {
		c.claim(node, w, own)
	}
}

// clash says who has a workload's name or one of its addresses. Workloads of one node share an address in the host's
// own network namespace, and nowhere else; own are the addresses that were claimed in this registration.
func (c claims) clash(node string, w snapshot.Workload, own map[netip.Addr]snapshot.Workload) *finding.Finding {
	if by, taken := c.names[idOf(w)]; taken && by != node {
		return new(finding.New("ISM0012", kind.Workload(w.Namespace, w.Name), "",
			fmt.Sprintf("registered by node %s and later by node %s; the latter is ignored", by, node),
			fmt.Sprintf("rename one of them in its node's settings; if node %s is gone for "+
				"good: isthmus node revoke %s", by, by)))
	}
	for _, a := range w.Addresses {
		by, taken := c.addrs[a]
		if taken = taken && by.node != node; !taken {
			var mine snapshot.Workload
			if mine, taken = own[a]; taken {
				by, taken = owner{node, idOf(mine)}, mine.Netns != "" || w.Netns != ""
			}
		}
		if taken {
			return new(finding.New("ISM0244", kind.Workload(w.Namespace, w.Name),
				"addresses",
				fmt.Sprintf("node %s gives it the address %s, which workload %s on node %s "+
					"has; it is not registered", node, a, by.workload, by.node),
				fmt.Sprintf("correct the address in the node's settings; if node %s is gone for "+
					"good: isthmus node revoke %s", by.node, by.node)))
		}
	}
	return nil
}

// release gives up what a node's workloads had and those that it keeps have not. It says whether that was anything.
func (c claims) release(node string, had, keeps []snapshot.Workload) (freed bool) {
	names, addrs := map[model.WorkloadID]bool{}, map[netip.Addr]model.WorkloadID{}
	for _, w := range keeps {
		names[idOf(w)] = true
		for _, a := range w.Addresses {
			addrs[a] = idOf(w)
		}
	}
	for _, w := range had {
		if id := idOf(w); !names[id] && c.names[id] == node {
			delete(c.names, id)
			freed = true
		}
		for _, a := range w.Addresses {
			switch id, kept := addrs[a]; {
			case c.addrs[a].node != node:
			case kept:
				c.addrs[a] = owner{node, id}
			default:
				delete(c.addrs, a)
				freed = true
			}
		}
	}
	return freed
}
