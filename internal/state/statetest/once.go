package statetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func token(id string) state.Token {
	return state.Token{
		ID: id, Hash: hash("secret of " + id), Node: "n1", Role: snapshot.RoleNode,
		Grant:   grant.Grant{Identities: []string{"default/*", "pay/api"}},
		Created: epoch, Expires: after(15 * time.Minute),
	}
}

func tokenOnce(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, token("a")))
	wantErr(t, s.AddToken(ctx, token("a")), state.ErrExists)
	got, err := s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.7", after(time.Minute))
	ok(t, err)
	want := token("a")
	want.UsedAt, want.UsedBy = after(time.Minute), "10.0.0.7"
	same(t, got, want)
	all, err := s.Tokens(ctx)
	ok(t, err)
	same(t, all, []state.Token{want})
}

func tokenRefusals(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, token("a")))
	ok(t, s.AddToken(ctx, token("b")))
	_, err := s.UseToken(ctx, "a", hash("guess"), "10.0.0.66", after(time.Minute))
	wantErr(t, err, state.ErrSecret)
	_, err = s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.7", after(2*time.Minute))
	ok(t, err)
	for i := range 3 {
		_, err = s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.66", after(time.Duration(3+i)*time.Minute))
		wantErr(t, err, state.ErrUsed)
	}
	_, err = s.UseToken(ctx, "b", hash("secret of b"), "10.0.0.8", after(15*time.Minute)) // the exact end is too late
	wantErr(t, err, state.ErrExpired)
	for _, id := range []string{"x", "y"} {
		_, err = s.UseToken(ctx, id, hash("secret of a"), "10.0.0.9", after(20*time.Minute))
		wantErr(t, err, state.ErrNotFound)
	}
	got, err := s.Events(ctx, state.EventFilter{})
	ok(t, err)
	refused := func(from, object, detail string, first, last time.Time, count int) state.Event {
		return state.Event{
			Time: last, Actor: "stranger", From: from, Action: "node join", Object: object, Outcome: "refused",
			Detail: detail, First: first, Count: count,
		}
	}
	same(t, got, []state.Event{
		refused("10.0.0.66", "a", "wrong secret", after(time.Minute), after(time.Minute), 1),
		refused("10.0.0.66", "a", "used already", after(3*time.Minute), after(5*time.Minute), 3),
		refused("10.0.0.8", "b", "expired", after(15*time.Minute), after(15*time.Minute), 1),
		refused("10.0.0.9", "", "unknown", after(20*time.Minute), after(20*time.Minute), 2),
	})
}

// tokenEnded tests that a token that has been seen as expired stays so when the clock is set back.
func tokenEnded(t *testing.T, s state.Store) {
	ctx := t.Context()
	for _, id := range []string{"tried", "swept", "young"} {
		tok := token(id)
		if id == "young" {
			tok.Expires = after(time.Hour)
		}
		ok(t, s.AddToken(ctx, tok))
	}
	i := invite("swept")
	ok(t, s.AddInvite(ctx, i))
	_, err := s.UseToken(ctx, "tried", hash("secret of tried"), "10.0.0.7", after(16*time.Minute))
	wantErr(t, err, state.ErrExpired)
	ok(t, s.EndExpired(ctx, after(16*time.Minute)))
	for _, id := range []string{"tried", "swept"} {
		_, err = s.UseToken(ctx, id, hash("secret of "+id), "10.0.0.7", after(5*time.Minute))
		wantErr(t, err, state.ErrExpired)
	}
	_, err = s.UseInvite(ctx, i.ID, hash("secret of swept"), "retail.example", after(5*time.Minute))
	wantErr(t, err, state.ErrExpired)
	_, err = s.UseToken(ctx, "young", hash("secret of young"), "10.0.0.7", after(5*time.Minute))
	ok(t, err)
}

func cancelledToken(t *testing.T, s state.Store) {
	ctx := t.Context()
	made := token("a")
	made.MadeBy = "administrator alice"
	ok(t, s.AddToken(ctx, made))
	ok(t, s.AddToken(ctx, token("b")))
	ok(t, s.CancelToken(ctx, "a", after(time.Minute)))
	_, err := s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.7", after(2*time.Minute))
	wantErr(t, err, state.ErrNotFound)
	_, err = s.UseToken(ctx, "b", hash("secret of b"), "10.0.0.7", after(2*time.Minute))
	ok(t, err)
	ok(t, s.CancelToken(ctx, "a", after(3*time.Minute))) // again
	wantErr(t, s.CancelToken(ctx, "b", after(3*time.Minute)), state.ErrUsed)
	wantErr(t, s.CancelToken(ctx, "z", after(3*time.Minute)), state.ErrNotFound)
	all, err := s.Tokens(ctx)
	ok(t, err)
	made.Cancelled = after(time.Minute)
	used := token("b")
	used.UsedAt, used.UsedBy = after(2*time.Minute), "10.0.0.7"
	same(t, all, []state.Token{made, used})

	for _, id := range []string{"c", "d"} {
		more := token(id)
		more.MadeBy = "administrator alice"
		ok(t, s.AddToken(ctx, more))
	}
	n, err := s.CancelTokensMadeBy(ctx, "administrator alice", after(4*time.Minute))
	ok(t, err)
	same(t, n, int64(2)) // the first was already cancelled
	_, err = s.UseToken(ctx, "d", hash("secret of d"), "10.0.0.7", after(5*time.Minute))
	wantErr(t, err, state.ErrNotFound)
}

func tokenRace(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, token("a")))
	race(t, func() error {
		_, err := s.UseToken(ctx, "a", hash("secret of a"), "10.0.0.7", after(time.Minute))
		return err
	})
}

func invite(id string) state.Invite {
	return state.Invite{
		ID: id, Hash: hash("secret of " + id), Peer: "retail", Created: epoch,
		Expires: after(10 * time.Minute),
	}
}

func invites(t *testing.T, s state.Store) {
	ctx := t.Context()
	for _, id := range []string{"b", "a", "c"} {
		ok(t, s.AddInvite(ctx, invite(id)))
	}
	wantErr(t, s.AddInvite(ctx, invite("a")), state.ErrExists)
	got, err := s.UseInvite(ctx, "a", hash("secret of a"), "198.51.100.4", after(time.Minute))
	ok(t, err)
	want := invite("a")
	want.UsedAt, want.UsedBy = after(time.Minute), "198.51.100.4"
	same(t, got, want)
	_, err = s.UseInvite(ctx, "a", hash("secret of a"), "198.51.100.5", after(time.Minute))
	wantErr(t, err, state.ErrUsed)
	_, err = s.UseInvite(ctx, "b", hash("secret of a"), "198.51.100.5", after(time.Minute))
	wantErr(t, err, state.ErrSecret)
	open, err := s.OpenInvites(ctx, after(time.Minute))
	ok(t, err)
	same(t, open, []snapshot.Invite{
		{ID: "b", Peer: "retail", Expires: after(10 * time.Minute)},
		{ID: "c", Peer: "retail", Expires: after(10 * time.Minute)},
	})
	ok(t, s.CancelInvites(ctx, "retail"))
	_, err = s.UseInvite(ctx, "b", hash("secret of b"), "198.51.100.4", after(time.Minute))
	wantErr(t, err, state.ErrNotFound)
	ok(t, s.AddInvite(ctx, invite("d")))
	_, err = s.UseInvite(ctx, "d", hash("secret of d"), "198.51.100.5", after(time.Hour))
	wantErr(t, err, state.ErrExpired)
}

func inviteRace(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AddInvite(ctx, invite("a")))
	race(t, func() error {
		_, err := s.UseInvite(ctx, "a", hash("secret of a"), "198.51.100.4", after(time.Minute))
		return err
	})
}

// race runs a hundred uses concurrently: one must succeed, the others must return ErrUsed.
func race(t *testing.T, use func() error) {
	t.Helper()
	errs := make([]error, 100)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			<-start
			errs[i] = use()
		})
	}
	close(start)
	wg.Wait()
	won, used := 0, 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case errors.Is(err, state.ErrUsed):
			used++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	if won != 1 || used != 99 {
		t.Errorf("%d uses won and %d heard that it was used; want 1 and 99", won, used)
	}
}

func bootstraps(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.PutBootstrap(ctx, snapshot.Bootstrap{ID: "b", Address: "192.0.2.1:15443"}, after(time.Minute)))
	ok(t, s.PutBootstrap(ctx, snapshot.Bootstrap{ID: "a", Address: "192.0.2.2:15443"}, after(time.Hour)))
	got, err := s.Bootstraps(ctx, epoch)
	ok(t, err)
	same(t, got, []snapshot.Bootstrap{{ID: "a", Address: "192.0.2.2:15443"}, {ID: "b", Address: "192.0.2.1:15443"}})
	got, err = s.Bootstraps(ctx, after(time.Minute))
	ok(t, err)
	same(t, got, []snapshot.Bootstrap{{ID: "a", Address: "192.0.2.2:15443"}})
	ok(t, s.DeleteBootstrap(ctx, "a"))
	got, err = s.Bootstraps(ctx, epoch)
	ok(t, err)
	same(t, got, []snapshot.Bootstrap{{ID: "b", Address: "192.0.2.1:15443"}})
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(equalAddr)); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}
