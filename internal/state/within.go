package state

import (
	"fmt"
	"time"
)

// Within waits for a write, but not longer than d: a database may be away, and who calls has more to do than to wait
// for it. What was not waited for may be written all the same.
func Within[T any](d time.Duration, write func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() { // ends with the write, which the database bounds
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
