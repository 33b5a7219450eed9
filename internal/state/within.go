package state

import (
	"fmt"
	"time"
)

// Within waits for a write for at most d, since the database may be unavailable and the caller has other work. The
// write continues and may still succeed.
func Within[T any](d time.Duration, write func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() { // ends with the write, whose duration the database limits
		value, err := write()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-time.After(d):
		var none T
		return none, fmt.Errorf("no answer within %s", d)
	}
}
