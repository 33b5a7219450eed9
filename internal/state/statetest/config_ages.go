package statetest

import (
	"slices"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func configAges(t *testing.T, s state.Store) {
	ctx := t.Context()
	age := func(name, file string, micro int64) state.ConfigAge {
		return state.ConfigAge{
			Key: snapshot.Key{Kind: "Service", Namespace: "default", Name: name}, File: file,
			FirstSeen: time.UnixMicro(micro).UTC(),
		}
	}
	first, second, odd := age("a", "a.yaml", 7), age("a", "sub/b.yaml", 9), age("a", "\xff%2f\n'.yaml", 11)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetConfigAges(ctx, []state.ConfigAge{odd, second, first}, nil))
	got, err := s.ConfigAges(ctx)
	if err != nil || !slices.Equal(got, []state.ConfigAge{first, second, odd}) {
		t.Fatalf("got %v, %v", got, err)
	}
	late, early := age("a", "sub/b.yaml", 12), age("a", "sub/b.yaml", 8)
	must(s.SetConfigAges(ctx, []state.ConfigAge{late}, nil))
	if got, err = s.ConfigAges(ctx); err != nil || !slices.Equal(got, []state.ConfigAge{first, second, odd}) {
		t.Fatalf("got %v, %v", got, err)
	}
	must(s.SetConfigAges(ctx, []state.ConfigAge{early}, nil))
	second = early
	moved := age("a", "moved.yaml", 7)
	must(s.SetConfigAges(ctx, []state.ConfigAge{moved}, []state.ConfigAge{first, odd}))
	if got, err = s.ConfigAges(ctx); err != nil || !slices.Equal(got, []state.ConfigAge{moved, second}) {
		t.Fatalf("got %v, %v", got, err)
	}
}
