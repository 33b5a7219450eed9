package store

import (
	"fmt"
	"net/netip"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// claims records which node owns each workload name and address. The first node keeps them until it releases them or is
// revoked, even across a restart: only workloads without a clash are stored in the state.
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

// take claims what a node's workloads need, starting with those that it already has. It returns the workloads that have
// everything, in order, and findings about the others, which get nothing.
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

// give assigns names and addresses to a node, whoever had them.
func (c claims) give(node string, workloads []snapshot.Workload) {
	own := map[netip.Addr]snapshot.Workload{}
	for _, w := range workloads {
		c.claim(node, w, own)
	}
}

// clash returns a finding if another node owns a workload's name or one of its addresses. Workloads of one node may
// share an address only in the host's network namespace. own are the addresses claimed in this registration.
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

// release frees the names and addresses that a node's workloads had and no longer have. It reports whether there were
// any.
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
