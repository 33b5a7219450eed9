package waittest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fatal is a test that notes how it ended.
type fatal struct {
	testing.TB
	ended bool
}

func (f *fatal) Helper() {}

func (f *fatal) Fatalf(string, ...any) {
	f.ended = true
	panic(f)
}

// ends says whether fn ends its test.
func ends(t *testing.T, fn func(testing.TB)) bool {
	f := &fatal{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != f {
				panic(p)
			}
		}()
		fn(f)
	}()
	return f.ended
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		due := time.Now().Add(29 * time.Second)
		Until(t, "it is due", func() bool { return !time.Now().Before(due) })
		if late := time.Since(due); late < 0 || late > 10*time.Millisecond {
			t.Errorf("Until returned %s late", late)
		}
		begun := time.Now()
		if !ends(t, func(t testing.TB) { Until(t, "never", func() bool { return false }) }) {
			t.Error("Until returned without what it waited for")
		}
		if took := time.Since(begun); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("Until gave up after %s", took)
		}
		due = time.Now().Add(3 * time.Second)
		try := func() error {
			if time.Now().Before(due) {
				return errors.New("not yet")
			}
			return nil
		}
		if !ends(t, func(t testing.TB) { Within(t, time.Second, "too soon", try) }) {
			t.Error("Within took longer than it may")
		}
		if took := Within(t, 5*time.Second, "in time", try); took < 1900*time.Millisecond || took > 2*time.Second {
			t.Errorf("Within waited %s, want 2 s", took)
		}
	})
}

func TestAdvance(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		rang := false
		time.AfterFunc(time.Hour, func() { rang = true })
		Advance(time.Hour)
		if !rang {
			t.Error("what was due has not happened")
		}
	})
	defer func() {
		if recover() == nil {
			t.Error("time advances outside of a bubble")
		}
	}()
	Advance(0)
}
