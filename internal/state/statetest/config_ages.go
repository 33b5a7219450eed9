package statetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// age returns the age of a Service in a file, in microseconds since 1970.
func age(name, file string, micro int64) state.ConfigAge {
	return state.ConfigAge{
		Key: snapshot.Key{Kind: "Service", Namespace: "default", Name: name}, File: file,
		FirstSeen: time.UnixMicro(micro).UTC(),
	}
}

type ages = []state.ConfigAge

func configAges(t *testing.T, s state.Store) {
	ctx := t.Context()
	keep := func(c state.AgeChange, want ages) {
		t.Helper()
		got, err := s.KeepConfigAges(ctx, c)
		ok(t, err)
		slices.SortFunc(got, func(a, b state.ConfigAge) int { return a.FirstSeen.Compare(b.FirstSeen) })
		if !slices.Equal(got, want) {
			t.Errorf("kept are %v, want %v", got, want)
		}
	}
	all := func(want ...state.ConfigAge) {
		t.Helper()
		got, err := s.ConfigAges(ctx)
		ok(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("all are %v, want %v", got, want)
		}
	}
	first, second, odd := age("a", "a.yaml", 7), age("a", "sub/b.yaml", 9), age("a", "\xff%2f\n'.yaml", 11)
	keep(state.AgeChange{New: ages{odd, second, first}}, ages{first, second, odd})
	all(first, second, odd)
	// a later writer, with an earlier or later time
	keep(state.AgeChange{New: ages{age("a", "a.yaml", 12), age("a", "sub/b.yaml", 5)}}, ages{first, second})
	keep(state.AgeChange{Known: ages{age("a", "a.yaml", 6)}}, ages{first})
	all(first, second, odd)
	// by a clock that is behind: differences and equality of times are kept
	keep(state.AgeChange{New: ages{age("b", "b.yaml", 3), age("c", "b.yaml", 3), age("d", "b.yaml", 5)}},
		ages{age("b", "b.yaml", 12), age("c", "b.yaml", 12), age("d", "b.yaml", 14)})
	// by a clock that is ahead, and a file that was moved
	ahead, moved := age("e", "e.yaml", 90), age("a", "moved.yaml", 7)
	keep(state.AgeChange{New: ages{ahead}, Known: ages{moved}, Gone: ages{first, odd}}, ages{moved, ahead})
	all(moved, second, age("b", "b.yaml", 12), age("c", "b.yaml", 12), age("d", "b.yaml", 14), ahead)
	keep(state.AgeChange{}, nil)
}

// agesOfTwo tests that two control planes that see the files in different orders, with different clocks, get the same
// order.
func agesOfTwo(t *testing.T, a, b state.Store) {
	ctx := t.Context()
	const n = 20
	var told [2]map[string]time.Time
	var all sync.WaitGroup
	for i, s := range []state.Store{a, b} {
		told[i] = map[string]time.Time{}
		all.Go(func() {
			for j := range int64(n) {
				at, clock := j, 1000+j
				if i == 1 {
					at, clock = n-1-j, 5000+j
				}
				kept, err := s.KeepConfigAges(ctx, state.AgeChange{New: ages{age("a", fmt.Sprint(at, ".yaml"), clock)}})
				if err != nil || len(kept) != 1 {
					t.Errorf("kept %v, %v", kept, err)
					return
				}
				told[i][kept[0].File] = kept[0].FirstSeen
			}
		})
	}
	all.Wait()
	same(t, told[0], told[1])
	seen := map[time.Time]bool{}
	for _, at := range told[0] {
		seen[at] = true
	}
	same(t, len(seen), n) // no two have the same time

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	news := b.Watch(ctx)
	_, err := a.KeepConfigAges(ctx, state.AgeChange{New: ages{age("new", "new.yaml", 1)}}) // nobody need hear
	ok(t, err)
	_, err = a.KeepConfigAges(ctx, state.AgeChange{Gone: ages{age("a", "0.yaml", 0), age("nobody", "", 0)}})
	ok(t, err)
	hears(t, news, state.Change{Topic: state.Ages})
}
