package accesslog

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// plaintextKept is how long a caller counts as a plaintext caller after its last call.
	plaintextKept = time.Hour
	// maxPlaintext bounds the known callers of one workload. Further ones count when another expires.
	maxPlaintext = 256
)

// plaintext records who called which workload without mutual TLS, where that is allowed.
type plaintext struct {
	mu      sync.Mutex // guards callers
	callers map[string]map[string]time.Time
}

// add reports whether the caller, an address, is new.
func (p *plaintext) add(workload, caller string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.callers == nil {
		p.callers = map[string]map[string]time.Time{}
	}
	of := p.callers[workload]
	if of == nil {
		of = map[string]time.Time{}
		p.callers[workload] = of
	}
	_, known := of[caller]
	if known || len(of) < maxPlaintext {
		of[caller] = now
	}
	return !known && of[caller] == now
}

// expire removes callers whose last plaintext call is too old to count, and reports whether there were any.
func (p *plaintext) expire(now time.Time) (some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.callers {
		before := len(of)
		maps.DeleteFunc(of, func(_ string, last time.Time) bool { return now.Sub(last) > plaintextKept })
		some = some || len(of) < before
	}
	return some
}

func (p *plaintext) of(workload string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.callers[workload]), strings.Compare)
}

// Plaintext returns the addresses from which a workload was called without mutual TLS in the last hour, where that is
// allowed.
func (s *Service) Plaintext(workload string) []string { return s.plaintext.of(workload) }

// ForgetPlaintext removes callers without a plaintext call for an hour, and reports whether there were any.
func (s *Service) ForgetPlaintext(now time.Time) bool { return s.plaintext.expire(now) }

// recordPlaintext records the caller of an entry from a port that accepts plaintext.
func (s *Service) recordPlaintext(e *Entry) {
	workload := e.Tags[tagWorkload]
	if workload == "" || e.Remote == "" || !s.plaintext.add(workload, e.Remote, s.now()) {
		return
	}
	s.cfg.Log.Warn("called in plaintext, which STRICT would refuse", "workload", workload, "remote", e.Remote)
	if s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}
