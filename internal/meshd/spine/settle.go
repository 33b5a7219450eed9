package spine

import (
	"context"
	"time"
)

const (
	// settleWait is how long a run of the spine waits for the registrations of those who waited for a name or an
	// address that is free now: so they come into force together with what freed it.
	settleWait = time.Second
	// settleAgain is when a registration that waited, and could not be written, is tried again.
	settleAgain = time.Second
)

// settle has those registered who waited for a name or an address that is free now. It does not wait for a state that
// takes long: who is revoked must not stay in force because of who comes after.
func (l *Loop) settle(ctx context.Context) {
	if l.settling != nil {
		return // an earlier run began it
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

// settled notes how that went. What was registered by it is news by itself.
func (l *Loop) settled(err error) {
	l.settling = nil
	if err != nil {
		l.Log.Error("workloads that waited for a name or an address are not registered yet", "error", err)
		time.AfterFunc(settleAgain, l.again)
	}
}
