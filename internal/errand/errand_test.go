package errand

import (
	"errors"
	"testing"
	"testing/synctest"
)

func TestAskedForDuringARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, wait := 0, make(chan struct{})
		e := New(func() error { runs++; <-wait; return nil }, nil)
		for range 5 {
			e.Ask()
		}
		synctest.Wait()
		if runs != 1 {
			t.Errorf("%d runs at a time, want one", runs)
		}
		wait <- struct{}{}
		synctest.Wait()
		if runs != 2 {
			t.Errorf("%d runs, want one more for all that was asked meanwhile", runs)
		}
		wait <- struct{}{}
		synctest.Wait()
		if runs != 2 {
			t.Errorf("%d runs, want no more than were asked for", runs)
		}
		e.Ask()
		synctest.Wait()
		if runs != 3 {
			t.Errorf("%d runs, want another when it is asked for again", runs)
		}
		close(wait)
		e.Stop()
		e.Ask()
		synctest.Wait()
		if runs != 3 {
			t.Error("it ran after it was stopped")
		}
	})
}

func TestAnErrorEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, failed, ended := 0, errors.New("failed"), make(chan error, 1)
		e := New(func() error { runs++; return failed }, ended)
		e.Ask()
		synctest.Wait()
		e.Ask()
		synctest.Wait()
		if err := <-ended; err != failed || runs != 1 {
			t.Errorf("%d runs, ended by %v", runs, err)
		}
		e.Stop()
	})
}
