package contain_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/snapshot"
)

func numbered(n int) (keys []snapshot.Key) {
	for i := range n {
		keys = append(keys, snapshot.Key{Kind: "Service", Namespace: "default", Name: fmt.Sprintf("s%04d", i)})
	}
	return keys
}

func names(keys []snapshot.Key) (out []string) {
	for _, k := range keys {
		out = append(out, k.Name)
	}
	return out
}

// search runs Culprits against an Envoy that dies of each group of objects that is in force together.
func search(n int, fatal ...[]string) (found []string, whole bool, trials int, err error) {
	all := numbered(n)
	keys, whole, err := contain.Culprits(all, func(closed []snapshot.Key) (bool, error) {
		trials++
		for _, group := range fatal {
			if !slices.ContainsFunc(group, func(name string) bool { return slices.Contains(names(closed), name) }) {
				return false, nil
			}
		}
		return true, nil
	})
	return names(keys), whole, trials, err
}

func TestCulprits(t *testing.T) {
	for name, c := range map[string]struct {
		n      int
		fatal  [][]string
		want   []string
		trials int // at most
	}{
		"nobody":               {4, nil, nil, 1},
		"the only one":         {1, [][]string{{"s0000"}}, []string{"s0000"}, 2},
		"the first":            {1000, [][]string{{"s0000"}}, []string{"s0000"}, 14},
		"the last":             {1000, [][]string{{"s0999"}}, []string{"s0999"}, 14},
		"one among a thousand": {1000, [][]string{{"s0500"}}, []string{"s0500"}, 14},
		"three": {
			100, [][]string{{"s0003"}, {"s0004"}, {"s0099"}}, []string{"s0003", "s0004", "s0099"}, 28,
		},
		"two that are fatal together": {100, [][]string{{"s0010", "s0090"}}, []string{"s0090"}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			got, whole, trials, err := search(c.n, c.fatal...)
			if err != nil || whole || !reflect.DeepEqual(got, c.want) || trials > c.trials {
				t.Errorf("got %v after %d trials (%v, %v), want %v after at most %d", got, trials, whole, err, c.want,
					c.trials)
			}
		})
	}
}

// Whatever the culprits are, the outcome is a configuration that lives, with no more closed than that takes.
func TestCulpritsOfAnySort(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		n := 1 + rnd.IntN(40)
		var fatal [][]string
		for range rnd.IntN(4) {
			group := []string{fmt.Sprintf("s%04d", rnd.IntN(n))}
			if rnd.IntN(2) == 0 {
				group = append(group, fmt.Sprintf("s%04d", rnd.IntN(n)))
			}
			fatal = append(fatal, group)
		}
		got, whole, _, err := search(n, fatal...)
		if err != nil || whole {
			t.Fatalf("%v: %v %v", fatal, whole, err)
		}
		for _, group := range fatal {
			if !slices.ContainsFunc(group, func(name string) bool { return slices.Contains(got, name) }) {
				t.Errorf("of %v nothing is closed: %v", group, got)
			}
		}
		if len(got) > len(fatal) {
			t.Errorf("%d are closed for %v: %v", len(got), fatal, got)
		}
	}
}

func TestCulpritsNotAmongTheCandidates(t *testing.T) {
	_, _, err := contain.Culprits(numbered(8), func([]snapshot.Key) (bool, error) { return false, nil })
	if !errors.Is(err, contain.ErrNoCulprit) {
		t.Errorf("got %v", err)
	}
}

func TestCulpritsWhenATrialFails(t *testing.T) {
	away := errors.New("the agent is away")
	for fails := range 6 {
		trials := 0
		keys, _, err := contain.Culprits(numbered(16), func(closed []snapshot.Key) (bool, error) {
			if trials++; trials > fails {
				return false, away
			}
			return slices.Contains(names(closed), "s0011"), nil
		})
		if !errors.Is(err, away) || keys != nil {
			t.Errorf("after %d trials: %v, %v", fails, keys, err)
		}
	}
}

// A search that would go on and on ends, and closes what it could not clear.
func TestCulpritsWithoutEnd(t *testing.T) {
	var fatal [][]string
	for i := 0; i < 1000; i += 10 {
		fatal = append(fatal, []string{fmt.Sprintf("s%04d", i)})
	}
	got, whole, trials, err := search(1000, fatal...)
	if err != nil || !whole || trials > 64 {
		t.Errorf("%d trials, %v, %v", trials, whole, err)
	}
	for _, group := range fatal {
		if !slices.Contains(got, group[0]) {
			t.Errorf("%s is in force", group[0])
		}
	}
	if len(got) == 1000 {
		t.Error("what was found harmless is closed, too")
	}
}
