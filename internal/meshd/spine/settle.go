package spine

import (
	"context"
	"time"
)

const (
	// settleWait is how long a run waits for the registration of workloads that were waiting for a freed name or
	// address, so that they take effect together with what freed it.
	settleWait = time.Second
	// settleAgain is the pause before a waiting registration that could not be written is retried.
	settleAgain = time.Second
)

// settle registers workloads that were waiting for a name or address that is free now. It does not wait for a slow
// state: a revocation must not be delayed by registrations.
func (l *Loop) settle(ctx context.Context) {
	if l.settling != nil {
		return // an earlier run has started it
	}
	done := make(chan error, 1)
	go func() { done <- l.Source.Settle(ctx) }()
	select {
	case err := <-done:
		l.settled(err)
	case <-time.After(settleWait):
		l.settling = done
	}
}

// settled records the result. What it registered triggers another run by itself.
func (l *Loop) settled(err error) {
	l.settling = nil
	if err != nil {
		l.Log.Error("workloads that waited for a name or an address are not registered yet", "error", err)
		time.AfterFunc(settleAgain, l.again)
	}
}
