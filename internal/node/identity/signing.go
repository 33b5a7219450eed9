package identity

import (
	"sync"
	"time"
)

// Bounds on how soon a certificate is replaced whose root no longer signs: at once would be everybody at the same
// moment.
const (
	replaceLeast = 200 * time.Millisecond
	replaceMost  = 10 * time.Second
)

// Signing is under which root certificates are issued now. The zero value is ready; nothing is known yet.
type Signing struct {
	mu      sync.Mutex // guards what follows
	root    string
	since   time.Time
	changed chan struct{} // closed and replaced at every change
}

// Set says which root signs from now on.
func (s *Signing) Set(root string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == root {
		return
	}
	s.root, s.since = root, now
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Changed is closed at the next change.
func (s *Signing) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Wait returns how long a certificate need not be replaced, 0 when it is due. Both the time that has passed since it
// came and the calendar count: a clock that was set neither leaves a certificate in use whose days are over, or are yet
// to come, nor puts its replacement off.
func (s *Signing) Wait(svid *SVID, jitter float64, now time.Time) time.Duration {
	due, calendar := s.due(svid, jitter), now.Round(0)
	if calendar.Before(svid.Leaf().NotBefore) {
		return 0
	}
	return max(0, min(due.Sub(now), due.Round(0).Sub(calendar)))
}

// due returns when a certificate is to be replaced: at RenewAt, or soon when its root no longer signs. jitter is
// between -1 and 1.
func (s *Signing) due(svid *SVID, jitter float64) time.Time {
	due := svid.RenewAt(jitter)
	s.mu.Lock()
	root, from := s.root, s.since
	s.mu.Unlock()
	if root == "" || root == svid.under {
		return due
	}
	if svid.Received.After(from) {
		from = svid.Received // it came under the wrong root a moment ago: not again at once
	}
	spread := min(svid.Leaf().NotAfter.Sub(svid.Received)/10, replaceMost)
	if soon := from.Add(replaceLeast + time.Duration((jitter+1)/2*float64(spread))); soon.Before(due) {
		return soon
	}
	return due
}
