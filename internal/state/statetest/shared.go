package statetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

// patience limits the wait for anything that must happen.
const patience = 30 * time.Second

// RunShared tests the contract of a database that several control planes use. database creates a database and returns a
// function that opens it.
func RunShared(t *testing.T, database func(t *testing.T) (open func(t *testing.T) state.Store)) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, a, b state.Store)
	}{
		{"of racing uses at two one wins", tokenRaceOfTwo},
		{"a revocation ends a joining at the other", revokedAtTheOther},
		{"no address is given twice", addressesOfTwo},
		{"a name and an address are one node's", registrationsOfTwo},
		{"a lease is one's", leaseOfTwo},
		{"events are one chain", eventsOfTwo},
		{"of objects one order is kept", agesOfTwo},
		{"sequences never repeat", sequencesOfTwo},
		{"what one writes the other hears", heardByTheOther},
		{"what two write at once is heard in order", heardInOrder},
	} {
		t.Run(test.name, func(t *testing.T) {
			open := database(t)
			test.run(t, open(t), open(t))
		})
	}
}

func tokenRaceOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	ok(t, a.AddToken(ctx, token("a")))
	var mu sync.Mutex
	turn := 0
	race(t, func() error {
		mu.Lock()
		turn++
		s := []state.Store{a, b}[turn%2]
		mu.Unlock()
		_, err := s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.7", after(time.Minute))
		return err
	})
}

func revokedAtTheOther(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	for i := range 20 {
		name := fmt.Sprint("n", i)
		n := node(name, snapshot.RoleNode)
		ok(t, a.AttestNode(ctx, n))
		n.Generation = "again " + name
		made := token(n.Generation)
		made.Node = name
		ok(t, a.AddToken(ctx, made))
		_, err := a.UseToken(ctx, made.ID, hash("secret of "+made.ID), "10.0.0.7", after(time.Minute))
		ok(t, err)
		var all sync.WaitGroup
		all.Go(func() {
			if err := a.AttestNode(ctx, n); err != nil && !errors.Is(err, state.ErrRevoked) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := b.RevokeNode(ctx, name, after(2*time.Minute)); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		got, err := a.Node(ctx, name)
		ok(t, err)
		same(t, got.Revoked, after(2*time.Minute))
	}
}

// addressesOfTwo tests that two control planes that choose independently end up with one consistent choice.
func addressesOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	row := func(host string) vip.Row {
		return vip.Row{Host: vip.Host{Name: host, Namespace: "default"}, Addr: netip.MustParseAddr("240.240.1.1")}
	}
	var errs [2]error
	var all sync.WaitGroup
	for i, s := range []state.Store{a, b} {
		all.Go(func() { errs[i] = s.SaveVIPs(ctx, vip.Change{Put: []vip.Row{row(fmt.Sprint("host", i))}}) })
	}
	all.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), state.ErrExists) {
		t.Errorf("two hosts were given one address: %v", errs)
	}
	rows, err := a.VIPs(ctx)
	ok(t, err)
	same(t, len(rows), 1)
}

// registrationsOfTwo tests two nodes that register the same workload at two control planes at once.
func registrationsOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	ok(t, a.AttestNode(ctx, node("n0", snapshot.RoleNode)))
	ok(t, a.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	for i := range 20 {
		var errs [2]error
		var all sync.WaitGroup
		for j, s := range []state.Store{a, b} {
			w := workload("default", "web") // the same name
			if i%2 == 0 {
				w.Name = fmt.Sprint("web", j) // the same address
			}
			all.Go(func() {
				errs[j] = s.RegisterNode(ctx,
					registration(snapshot.Node{Name: fmt.Sprint("n", j)}, []snapshot.Workload{w}), epoch)
			})
		}
		all.Wait()
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), state.ErrExists) {
			t.Fatalf("round %d: %v", i, errs)
		}
		for _, name := range []string{"n0", "n1"} {
			ok(t, a.RegisterNode(ctx, registration(snapshot.Node{Name: name}, nil), epoch))
		}
	}
}

func leaseOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	var mu sync.Mutex
	var tokens []uint64
	var all sync.WaitGroup
	for i, s := range []state.Store{a, b} {
		for range 20 {
			all.Go(func() {
				l, err := s.Acquire(ctx, "work", fmt.Sprint("holder ", i), nil, time.Hour)
				if errors.Is(err, state.ErrExists) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens = append(tokens, l.Token)
			})
		}
	}
	all.Wait()
	if len(tokens) != 20 || slices.Max(tokens) != 1 { // all by one holder, none by the other
		t.Errorf("leases with tokens %v", tokens)
	}
}

func eventsOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	var all sync.WaitGroup
	for _, s := range []state.Store{a, b} {
		for i := range 50 {
			all.Go(func() {
				if err := s.Record(ctx, eventBy(0, epoch, "token create", fmt.Sprint("node n", i),
					state.OK)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	got, err := b.Events(ctx, state.EventFilter{Limit: 1000})
	ok(t, err)
	for i, e := range got {
		same(t, e.Seq, uint64(i+1))
	}
	same(t, len(got), 100)
	ok(t, a.Check(ctx))
}

func sequencesOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var all sync.WaitGroup
	for _, s := range []state.Store{a, b} {
		for range 50 {
			all.Go(func() {
				n, err := s.NextSequence(ctx, "bundle", "", epoch)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if seen[n] {
					t.Errorf("%d was given twice", n)
				}
				seen[n] = true
			})
		}
	}
	all.Wait()
}

func heardByTheOther(t *testing.T, a, b state.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	own, others := a.Watch(ctx), b.Watch(ctx)
	for _, test := range []struct {
		write func() error
		want  state.Change
	}{
		{
			func() error { return a.AttestNode(ctx, node("n2", snapshot.RoleNode)) },
			state.Change{Topic: state.Nodes, Key: "n2"},
		},
		{
			func() error { return a.RegisterNode(ctx, registration(snapshot.Node{Name: "n2"}, nil), epoch) },
			state.Change{Topic: state.Nodes, Key: "n2"},
		},
		{func() error { return a.RevokeNode(ctx, "n2", epoch) }, state.Change{Topic: state.Nodes, Key: "n2"}},
		{
			func() error { return a.SetPeerSuspended(ctx, "retail", true) },
			state.Change{Topic: state.Peers, Key: "retail"},
		},
		{func() error { return a.AddInvite(ctx, invite("a")) }, state.Change{Topic: state.Invitations}},
		{func() error {
			return a.AddAdmin(ctx, state.Admin{Generation: "g", Name: "alice", Created: epoch, NotAfter: epoch})
		}, state.Change{Topic: state.Admins, Key: "alice"}},
		{
			func() error { return a.PutBlob(ctx, state.Blob{Name: "root", Created: epoch}, nil) },
			state.Change{Topic: state.Authority},
		},
		{func() error {
			return a.SaveVIPs(ctx, vip.Change{Put: []vip.Row{{
				Host: vip.Host{Name: "h"},
				Addr: netip.MustParseAddr("240.240.1.1"),
			}}})
		}, state.Change{Topic: state.Addresses}},
		{
			func() error { return a.ChangeQuarantines(ctx, []state.Quarantine{{Proxy: "n1", Since: epoch}}, nil) },
			state.Change{Topic: state.Quarantined},
		},
	} {
		ok(t, test.write())
		hears(t, others, test.want)
		test.want.Here = true
		hears(t, own, test.want)
	}
}

// hears waits until a watcher is notified of exactly one change.
func hears(t *testing.T, news <-chan []state.Change, want state.Change) {
	t.Helper()
	select {
	case got := <-news:
		same(t, got, []state.Change{want})
	case <-time.After(patience):
		t.Fatalf("nobody said %v", want)
	}
}

// heardInOrder tests that after reading what a change concerns, a watcher has read everything written before it.
func heardInOrder(t *testing.T, a, b state.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const n = 40
	news := b.Watch(ctx)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			s := []state.Store{a, b}[i%2]
			if err := s.SetPeerSuspended(ctx, fmt.Sprint("peer", i), true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var heard []string
	for len(heard) < n {
		select {
		case changes := <-news:
			for _, c := range changes {
				heard = append(heard, c.Key)
			}
		case <-ctx.Done():
			t.Fatalf("heard only of %v", heard)
		}
	}
	slices.Sort(heard)
	same(t, len(slices.Compact(heard)), n)
}
