package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// ErrSuperseded refuses what an agent says on a stream after it has said something on a newer one.
var ErrSuperseded = errors.New("a newer stream of this agent took over")

// registered is what a node says of itself, and what of it is in force.
type registered struct {
	node      snapshot.Node
	stream    uint64              // on which it was said
	said      []snapshot.Workload // all of them
	workloads []snapshot.Workload // without those that clash
	clashes   []finding.Finding
	waits     uint64 // since when it has clashes
}

// Register takes in what a node says of itself on one of its streams; later ones have higher numbers. What changes
// nothing costs nothing. Workloads whose name or address is another's are not registered until that is free. stands
// refuses a node that was revoked: whoever ends that and then calls Forget finds what came before, and nothing comes
// after.
func (s *Store) Register(
	ctx context.Context, stream uint64, node snapshot.Node, workloads []snapshot.Workload, stands func() error,
) error {
	return s.alone(ctx, node.Name, func() error {
		if err := stands(); err != nil {
			return err
		}
		return s.register(ctx, registered{stream: stream, node: node, said: workloads})
	})
}

// maxRereads bounds how often a registration is tried again because another control plane was quicker.
const maxRereads = 5

// alone registers a node while nobody else does. Where another control plane has given a name or an address away that
// this one thought free, it first takes that in.
func (s *Store) alone(ctx context.Context, node string, register func() error) error {
	for n := 0; ; n++ {
		err := s.locked(node, register)
		if !errors.Is(err, state.ErrExists) || !s.cfg.Kept.Shared() || n == maxRereads {
			return err
		}
		if err := s.ReloadNodes(ctx); err != nil {
			return err
		}
	}
}

func (s *Store) locked(node string, do func() error) error {
	one := s.registrationOf(node)
	one.Lock()
	defer one.Unlock()
	return do()
}

// register must be called with the node's registration lock held.
func (s *Store) register(ctx context.Context, next registered) error {
	name := next.node.Name
	s.mu.Lock()
	old := s.registry[name]
	if old == nil {
		old = &registered{}
	}
	if next.stream < old.stream {
		s.mu.Unlock()
		return fmt.Errorf("register node %s: %w", name, ErrSuperseded)
	}
	next.workloads, next.clashes = s.claims.take(name, next.said, old.workloads)
	next.waits = s.waiting(old, next)
	same := equalNodes(old.node, next.node) && slices.EqualFunc(old.workloads, next.workloads, snapshot.Workload.Equal)
	// which others must know, so that they refuse the older one
	newer := next.stream != old.stream && s.cfg.Kept.Shared()
	s.mu.Unlock()

	if !same || newer { // not with mu held: snapshots need not wait for the disk
		r := state.Registration{Node: next.node, Conversation: next.stream, Workloads: next.workloads}
		if err := s.cfg.Kept.RegisterNode(ctx, r, s.cfg.Now()); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.freed = s.claims.release(name, next.workloads, old.workloads) || s.freed
			if errors.Is(err, state.ErrSuperseded) {
				err = ErrSuperseded
			}
			return fmt.Errorf("register node %s: %w", name, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registry[name] = &next
	freed := s.claims.release(name, old.workloads, next.workloads)
	s.freed = s.freed || freed
	if !same || freed || !slices.Equal(old.clashes, next.clashes) {
		s.merged = nil
		s.mark()
	}
	return nil
}

// waiting returns since when a node has clashes, 0 for never. It must be called with mu held.
func (s *Store) waiting(old *registered, next registered) uint64 {
	switch {
	case len(next.clashes) == 0:
		return 0
	case old.waits > 0:
		return old.waits
	}
	s.waits++
	return s.waits
}

// Settle gives names and addresses that have become free to those who wait for them, in the order in which they came.
// Where that cannot be written it is to be called again. Of a node that was revoked they are free once that is written:
// Written says so.
func (s *Store) Settle(ctx context.Context) error {
	s.mu.Lock()
	freed := s.freed
	s.freed = false
	var waiting []*registered
	for _, r := range s.registry {
		if freed && r.waits > 0 {
			waiting = append(waiting, r)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(waiting, func(a, b *registered) int { return cmp.Compare(a.waits, b.waits) })
	var failed []error
	early := false
	for _, r := range waiting {
		err := s.again(ctx, r.node.Name)
		if errors.Is(err, state.ErrExists) {
			early = true
			continue
		}
		failed = append(failed, err)
	}
	err := errors.Join(failed...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed, s.early = s.freed || early || err != nil, s.early || early
	return err
}

// Written has those served who wait for a name or an address that was free too early, if any do.
func (s *Store) Written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.early {
		s.early = false
		s.mark()
	}
}

// again registers what a node said last.
func (s *Store) again(ctx context.Context, node string) error {
	return s.alone(ctx, node, func() error {
		s.mu.Lock()
		r := s.registry[node]
		s.mu.Unlock()
		if r == nil {
			return nil
		}
		return s.register(ctx, registered{stream: r.stream, node: r.node, said: r.said})
	})
}

// ReloadNode takes in what a node has said to another control plane, or that another one has revoked it.
func (s *Store) ReloadNode(ctx context.Context, node string) error {
	return s.locked(node, func() error {
		r, err := s.cfg.Kept.Registration(ctx, node)
		switch {
		case errors.Is(err, state.ErrNotFound):
			s.forget(node)
			return nil
		case err != nil:
			return err
		}
		s.takeIn(r)
		return nil
	})
}

// ReloadNodes is ReloadNode for all.
func (s *Store) ReloadNodes(ctx context.Context) error {
	reg, err := s.cfg.Kept.Registry(ctx)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, n := range reg.Nodes {
		names[n.Name] = true
	}
	s.mu.Lock()
	for name := range s.registry {
		names[name] = true
	}
	s.mu.Unlock()
	for name := range names {
		if err := s.ReloadNode(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// takeIn has what is kept of a node count. It must be called with the node's registration lock held.
func (s *Store) takeIn(r state.Registration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.registry[r.Node.Name]
	if old == nil {
		old = &registered{}
	}
	if equalNodes(old.node, r.Node) && slices.EqualFunc(old.workloads, r.Workloads, snapshot.Workload.Equal) {
		old.stream = max(old.stream, r.Conversation)
		return
	}
	next := &registered{node: r.Node, stream: r.Conversation, said: r.Workloads, workloads: r.Workloads}
	s.claims.give(r.Node.Name, r.Workloads)
	s.freed = s.claims.release(r.Node.Name, old.workloads, next.workloads) || s.freed
	s.registry[r.Node.Name] = next
	s.merged = nil
	s.mark()
}

// restore takes in what the state kept.
func (s *Store) restore(reg *snapshot.Registry) {
	on := map[string][]snapshot.Workload{}
	for _, w := range reg.Workloads {
		on[w.Node] = append(on[w.Node], w)
	}
	for _, n := range reg.Nodes {
		r := &registered{node: n, said: on[n.Name]}
		r.workloads, r.clashes = s.claims.take(n.Name, r.said, r.said)
		r.waits = s.waiting(r, *r)
		s.registry[n.Name] = r
	}
}

// registrationOf keeps a node's registrations in their order. Nodes may share one.
func (s *Store) registrationOf(node string) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(node))
	return &s.registering[h.Sum32()%uint32(len(s.registering))]
}

// Said returns what a node said last; false for one that has said nothing.
func (s *Store) Said(node string) (snapshot.Node, []snapshot.Workload, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registry[node]
	if r == nil {
		return snapshot.Node{}, nil, false
	}
	return r.node, r.said, true
}

// Clashes returns findings about those of a node's workloads whose name or address another has.
func (s *Store) Clashes(node string) []finding.Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.registry[node]; r != nil {
		return r.clashes
	}
	return nil
}

// Forget takes a node out that was revoked.
func (s *Store) Forget(node string) {
	_ = s.locked(node, func() error { // one that is under way must not bring it back
		s.forget(node)
		return nil
	})
}

func (s *Store) forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropReport(node)
	if r := s.registry[node]; r != nil {
		s.freed = s.claims.release(node, r.workloads, nil) || s.freed
		delete(s.registry, node)
		s.merged = nil
		s.mark()
	}
}

// Hosts reports whether a node registered a workload, or is the gateway, of a service account.
func (s *Store) Hosts(node, namespace, serviceAccount string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registry[node]
	if r == nil {
		return false
	}
	if r.node.Role == snapshot.RoleGateway {
		return namespace == spiffe.SystemNamespace && r.node.Gateway != nil &&
			r.node.Gateway.ServiceAccount == serviceAccount
	}
	return slices.ContainsFunc(r.workloads, func(w snapshot.Workload) bool {
		return w.Namespace == namespace && w.ServiceAccount == serviceAccount && !w.Away
	})
}

func equalNodes(a, b snapshot.Node) bool {
	return a.Name == b.Name && a.Role == b.Role && a.Reached == b.Reached && a.Builtin == b.Builtin &&
		(a.Gateway == nil) == (b.Gateway == nil) &&
		(a.Gateway == nil || *a.Gateway == *b.Gateway)
}

// merge returns the registry as a snapshot holds it. It must be called with mu held.
func (s *Store) merge() *snapshot.Registry {
	out := &snapshot.Registry{}
	for _, name := range slices.Sorted(maps.Keys(s.registry)) {
		r := s.registry[name]
		out.Nodes = append(out.Nodes, r.node)
		out.Clashes = append(out.Clashes, r.clashes...)
		for _, w := range r.workloads {
			if !w.Away {
				out.Workloads = append(out.Workloads, w)
			}
		}
	}
	return out
}
