package federation

import (
	"context"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
)

// Health is the state of the exchange with one peer since this process started.
type Health struct {
	// RefreshTried and RefreshOK are the last attempt and the last success to fetch the peer's bundle.
	RefreshTried, RefreshOK time.Time
	// RefreshError is the error of the last attempt; empty after a success. FailingSince is when the failures began.
	RefreshError    string
	FailingSince    time.Time
	RefreshFailures uint64 // in total
	// AdoptError says why the roots in the MeshPeer were not adopted.
	AdoptError string
	// Unwritten says why the state could not record that the peer is closed; empty if it did.
	Unwritten string
	// ClosedThere means that the peer last said that it blocks this mesh's calls.
	ClosedThere bool
	// PushOK is when the peer last accepted our catalogue, PushedSequence its number.
	PushOK         time.Time
	PushedSequence uint64
	PushError      string
	PushFailures   uint64 // in total
	// Behind is when the peer began to lack our newest catalogue; zero if it has it.
	Behind          time.Time
	catalogueDigest string // digest of the newest catalogue seen
	// ReadinessTold is when the peer last accepted a readiness report. ReadinessError says why the last one was not
	// accepted.
	ReadinessTold  time.Time
	ReadinessError string
	// ReadinessHeld is the number of the report that the peer last said it has, ReadinessHeard when it said so.
	ReadinessHeld  uint64
	ReadinessHeard time.Time
	// Served is when the peer last fetched our bundle, ServedSequence its number. NoticedSequence is the number of the
	// newest bundle that the peer says its proxies use. NoticeError says why it could not be asked last.
	Served          time.Time
	ServedSequence  uint64
	NoticedSequence uint64
	NoticeError     string
	ByHand          bool // the peer does not fetch bundles
	refreshSoon     bool // the peer announced that its bundle changed
}

// Health returns the health of one peer, or the zero value if it was never contacted. If another control plane of the
// mesh leads, it is what that one reports.
func (s *Service) Health(name string) Health {
	own := s.ownHealth(name)
	if _, leads := s.Leading(); leads {
		return own
	}
	h, known := s.LeadersHealth(name)
	if !known {
		return own
	}
	h.Unwritten = own.Unwritten
	return h
}

func (s *Service) ownHealth(name string) Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.health[name]; h != nil {
		return *h
	}
	return Health{}
}

// Healths returns the health of all peers, by name.
func (s *Service) Healths() map[string]Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Health, len(s.health))
	for name, h := range s.health {
		out[name] = *h
	}
	return out
}

func (s *Service) updateHealth(name string, change func(*Health)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health[name]
	if h == nil {
		h = &Health{}
		s.health[name] = h
	}
	change(h)
}

func (h *Health) wants(digest string, now time.Time) {
	if h.catalogueDigest != digest || h.Behind.IsZero() && h.PushOK.IsZero() {
		h.catalogueDigest = digest
		if h.Behind.IsZero() {
			h.Behind = now
		}
	}
}

// has records which catalogue the peer has.
func (h *Health) has(digest string) {
	h.PushError = ""
	if h.catalogueDigest == digest {
		h.Behind = time.Time{}
	}
}

// noteRefresh records the outcome of a refresh and logs the first failure in a row.
func (s *Service) noteRefresh(ctx context.Context, name string, err error, failures int) {
	if ctx.Err() != nil {
		return
	}
	now := s.Now()
	recovered := false
	s.updateHealth(name, func(h *Health) {
		h.RefreshTried = now
		if err == nil {
			recovered = h.RefreshError != ""
			h.RefreshOK, h.RefreshError, h.FailingSince = now, "", time.Time{}
			return
		}
		h.RefreshError = err.Error()
		h.RefreshFailures++
		if h.FailingSince.IsZero() {
			h.FailingSince = now
		}
	})
	switch {
	case failures == 1:
		s.Log.Warn("peer's bundle not refreshed", "peer", name, "error", err)
	case recovered:
		s.Log.Info("peer's bundle refreshed again", "peer", name)
	}
}

// notePush records the outcome of a push.
func (s *Service) notePush(ctx context.Context, name, digest string, sequence uint64, err error) {
	if ctx.Err() != nil {
		return
	}
	now := s.Now()
	first := false
	s.updateHealth(name, func(h *Health) {
		if err != nil {
			first = h.PushError == ""
			h.PushError = err.Error()
			h.PushFailures++
			return
		}
		h.PushOK, h.PushedSequence = now, sequence
		h.has(digest)
	})
	if first {
		s.Log.Warn("catalogue not pushed", "peer", name, "error", err)
	}
}

// forgetHealth drops peers that are gone.
func (s *Service) forgetHealth(peers map[string]peerrules.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.health {
		if _, ok := peers[name]; !ok {
			delete(s.health, name)
		}
	}
	for key := range s.since {
		if _, ok := peers[key.peer]; !ok {
			delete(s.since, key)
		}
	}
}

// settling is how long it may take until the gateways of both meshes have learned of a new peer.
const settling = 15 * time.Second

// connecting reports whether a new peer has not answered yet but is still within settling.
func (h Health) connecting(now time.Time) bool {
	return h.RefreshError != "" && h.RefreshOK.IsZero() && now.Sub(h.FailingSince) < settling
}
