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

// ErrSuperseded refuses a report on a stream after the agent has reported on a newer one.
var ErrSuperseded = errors.New("a newer stream of this agent took over")

// registered is a node's last report and the part of it that is in effect.
type registered struct {
	node      snapshot.Node
	stream    uint64              // that carried the report
	said      []snapshot.Workload // all reported workloads
	workloads []snapshot.Workload // the workloads without clashes
	clashes   []finding.Finding
	waits     uint64 // ticket since when it has clashes
}

// Register takes a node's report on one of its streams; later streams have higher numbers. An unchanged report costs
// nothing. Workloads with a name or address that belongs to another node wait until that is free. stands returns an
// error for a revoked node. After a revocation, a call of Forget removes everything reported before, and nothing is
// accepted afterwards.
func (s *Store) Register(
	ctx context.Context, stream uint64, node snapshot.Node, workloads []snapshot.Workload, stands func() error,
) error {
	return s.alone(ctx, node.Name, func(forgotten uint64) error {
		if err := stands(); err != nil {
			return err
		}
		return s.register(ctx, registered{stream: stream, node: node, said: workloads}, forgotten)
	})
}

// maxRereads limits the retries of a registration that conflicts with another control plane.
const maxRereads = 5

// alone serialises registrations of a node. If another control plane has assigned a name or address that seemed free
// here, alone loads that and retries.
func (s *Store) alone(ctx context.Context, node string, register func(forgotten uint64) error) error {
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

// locked serialises what is done about a node. do is told how often the node was forgotten before.
func (s *Store) locked(node string, do func(forgotten uint64) error) error {
	one := s.registrationOf(node)
	one.Lock()
	defer one.Unlock()
	s.mu.Lock()
	forgotten := s.forgotten[node]
	s.mu.Unlock()
	return do(forgotten)
}

// register must be called with the node's registration lock held. It has no effect if the node is forgotten meanwhile.
func (s *Store) register(ctx context.Context, next registered, forgotten uint64) error {
	name := next.node.Name
	s.mu.Lock()
	if s.forgotten[name] != forgotten {
		s.mu.Unlock()
		return fmt.Errorf("register node %s: %w", name, state.ErrRevoked)
	}
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
	// other control planes must know, so that they refuse the older stream
	newer := next.stream != old.stream && s.cfg.Kept.Shared()
	s.mu.Unlock()

	if !same || newer { // without mu, so that snapshots do not wait for the disk
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
	if s.forgotten[name] != forgotten {
		s.freed = s.claims.release(name, next.workloads, nil) || s.freed
		return fmt.Errorf("register node %s: %w", name, state.ErrRevoked)
	}
	s.registry[name] = &next
	freed := s.claims.release(name, old.workloads, next.workloads)
	s.freed = s.freed || freed
	if !same || freed || !slices.Equal(old.clashes, next.clashes) {
		s.merged = nil
		s.mark()
	}
	return nil
}

// waiting returns the ticket since when a node has clashes, or 0. The caller holds mu.
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

// Settle assigns names and addresses that have become free to the nodes that wait for them, in order of arrival. If it
// returns an error, call it again. Those of a revoked node become free only when the revocation has been written; call
// Written then.
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

// Written wakes the nodes that wait for names and addresses of a node whose revocation has now been written.
func (s *Store) Written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.early {
		s.early = false
		s.mark()
	}
}

// again registers a node's last report again.
func (s *Store) again(ctx context.Context, node string) error {
	return s.alone(ctx, node, func(forgotten uint64) error {
		s.mu.Lock()
		r := s.registry[node]
		s.mu.Unlock()
		if r == nil {
			return nil
		}
		return s.register(ctx, registered{stream: r.stream, node: r.node, said: r.said}, forgotten)
	})
}

// ReloadNode loads what a node has reported to another control plane, or that another one has revoked it.
func (s *Store) ReloadNode(ctx context.Context, node string) error {
	return s.locked(node, func(forgotten uint64) error {
		r, err := s.cfg.Kept.Registration(ctx, node)
		switch {
		case err == nil && s.cfg.Ended(r.Generation), errors.Is(err, state.ErrNotFound):
			s.forget(node)
			return nil
		case err != nil:
			return err
		}
		s.takeIn(r, forgotten)
		return nil
	})
}

// ReloadNodes does so for all nodes.
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

// takeIn puts a stored registration into effect. The caller holds the node's registration lock.
func (s *Store) takeIn(r state.Registration, forgotten uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgotten[r.Node.Name] != forgotten {
		return // revoked since it was read
	}
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

// restore loads the registry from the state.
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

// registrationOf returns the lock that serialises a node's registrations. Several nodes may share one.
func (s *Store) registrationOf(node string) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(node))
	return &s.registering[h.Sum32()%uint32(len(s.registering))]
}

// Said returns a node's last report. The result is false if there is none.
func (s *Store) Said(node string) (snapshot.Node, []snapshot.Workload, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registry[node]
	if r == nil {
		return snapshot.Node{}, nil, false
	}
	return r.node, r.said, true
}

// Clashes returns the findings about a node's workloads that claim a name or address of another.
func (s *Store) Clashes(node string) []finding.Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.registry[node]; r != nil {
		return r.clashes
	}
	return nil
}

// Forget removes a revoked node. It does not wait for a registration in progress, which may wait for the database:
// that has no effect any more.
func (s *Store) Forget(node string) {
	s.mu.Lock()
	s.forgotten[node]++
	s.mu.Unlock()
	s.forget(node)
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

// Hosts reports whether a node registered a workload of a service account, or is the gateway with that account.
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

// merge returns the registry for a snapshot. The caller holds mu.
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
