package retry

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoffGrowsWithinBounds(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for i, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		most *= time.Millisecond
		if d := b.Next(); d < most/2 || d > most {
			t.Errorf("wait %d: %v, want %v to %v", i, d, most/2, most)
		}
	}
	for range 100 {
		if d := b.Next(); d > time.Second || d < time.Second/2 {
			t.Fatalf("wait %v", d)
		}
	}
	b.Reset()
	if d := b.Next(); d > 100*time.Millisecond {
		t.Errorf("after Reset: %v", d)
	}
}

func TestSleepEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := Sleep(t.Context(), time.Minute); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun, at := time.Now(), []time.Duration{}
		Every(ctx, 3*time.Second, func(context.Context) { at = append(at, time.Since(begun)) })
		if want := []time.Duration{0, 3 * time.Second, 6 * time.Second, 9 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("done at %v, want %v", at, want)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("it ended after %v", took)
		}
		Every(ctx, time.Second, func(context.Context) { t.Error("done after the end") })
	})
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, no := 0, errors.New("not yet")
		if err := Until(t.Context(), time.Minute, time.Second, func(context.Context) error {
			if n++; n < 4 {
				return no
			}
			return nil
		}); err != nil || n != 4 {
			t.Errorf("%d attempts, %v", n, err)
		}
		begun := time.Now()
		err := Until(t.Context(), 5*time.Second, time.Second, func(ctx context.Context) error {
			if time.Since(begun) > 3*time.Second {
				<-ctx.Done()
				return ctx.Err()
			}
			return no
		})
		if !errors.Is(err, no) || err.Error() != "after 5s: not yet" || time.Since(begun) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		n = 0
		if err := Until(t.Context(), time.Minute, time.Second, func(context.Context) error {
			n++
			return Permanent{no}
		}); !errors.Is(err, no) || n != 1 {
			t.Errorf("a permanent error: %d attempts, %v", n, err)
		}
	})
}
