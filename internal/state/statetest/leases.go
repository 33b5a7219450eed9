package statetest

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// leases tests that one holder has a lease until it releases it or it expires, and that a former holder cannot write.
func leases(t *testing.T, s state.Store) {
	ctx := t.Context()
	first, err := s.Acquire(ctx, "work/a", "one", []byte("here"), time.Hour)
	ok(t, err)
	same(t, first, state.Lease{Name: "work/a", Holder: "one", Token: 1, Data: []byte("here")})
	_, err = s.Acquire(ctx, "work/a", "two", nil, time.Hour)
	wantErr(t, err, state.ErrExists)
	renewed, err := s.Acquire(ctx, "work/a", "one", []byte("still"), time.Hour)
	ok(t, err)
	same(t, renewed.Token, uint64(1))
	ok(t, s.Under(first).SetPeerSuspended(ctx, "retail", true))
	other, err := s.Acquire(ctx, "work/b", "two", []byte("there"), time.Hour)
	ok(t, err)
	_, err = s.Acquire(ctx, "x", "two", nil, time.Hour)
	ok(t, err)
	held, err := s.Leases(ctx, "work/")
	ok(t, err)
	same(t, held, []state.Lease{
		{Name: "work/a", Holder: "one", Token: 1, Data: []byte("still")},
		{Name: "work/b", Holder: "two", Token: 1, Data: []byte("there")},
	})

	ok(t, s.Release(ctx, first))
	wantErr(t, s.Under(first).SetPeerSuspended(ctx, "retail", false), state.ErrSuperseded)
	second, err := s.Acquire(ctx, "work/a", "two", nil, time.Hour)
	ok(t, err)
	same(t, second.Token, uint64(2))
	ok(t, s.Release(ctx, first)) // no longer held
	wantErr(t, s.Under(first).SetPeerSuspended(ctx, "retail", false), state.ErrSuperseded)
	p, err := PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, p.State.Suspended, true)
	ok(t, s.Under(second).SetPeerSuspended(ctx, "retail", false))

	// A lease that is not renewed expires.
	ok(t, s.Release(ctx, other))
	short, err := s.Acquire(ctx, "work/b", "one", nil, time.Millisecond)
	ok(t, err)
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		next, err := s.Acquire(ctx, "work/b", "two", nil, time.Hour)
		if err == nil {
			same(t, next.Token, short.Token+1)
			break
		}
		if wantErr(t, err, state.ErrExists); time.Since(begun) > patience {
			t.Fatal("it does not end")
		}
	}
	wantErr(t, s.Under(short).RevokePeer(ctx, "retail", epoch), state.ErrSuperseded)

	// Expired leases are removed after a while; held ones are not.
	ok(t, s.Prune(ctx, time.Now().Add(30*time.Minute)))
	held, err = s.Leases(ctx, "")
	ok(t, err)
	same(t, len(held), 3)
}
