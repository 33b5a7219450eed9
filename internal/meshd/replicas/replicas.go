// Package replicas has several control planes of one mesh act as one: what only one of them may do is done by the one
// that holds the lease, and each knows what the others say of themselves.
package replicas

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/xds"
)

const (
	// leaseTTL is how long a lease lasts that is not renewed, and so how long what a control plane did rests after it
	// died.
	leaseTTL = 6 * time.Second
	// renewEvery is how often leases are renewed, and the others looked at.
	renewEvery = 2 * time.Second
	// sureFor is how long after it asked for a lease a control plane relies on it: less than the lease lasts, since
	// clocks do not run alike.
	sureFor = 4 * time.Second
	// statusEvery is how often it is looked whether the status has changed.
	statusEvery = 500 * time.Millisecond
	// leader is the lease of the control plane that does what only one may do, and prefix that of the leases by which
	// each says that it lives.
	leader = "leader"
	prefix = "control plane/"
)

// Status is what a control plane says of itself to the others.
type Status struct {
	// Roots are the roots in force, by trust domain: SHA-256 of the PEM, hex.
	Roots map[string]string `json:"roots,omitempty"`
	// Lacking are the trust domains whose roots a proxy that is connected has not acknowledged.
	Lacking []string `json:"lacking,omitempty"`
	// Holders are the proxies that should have the mesh's own roots, while a rotation waits for them.
	Holders []xds.Holder `json:"holders,omitempty"`
	// Leads says that it is the one that keeps up with peers, and Peers how that goes, by name.
	Leads bool                         `json:"leads,omitempty"`
	Peers map[string]federation.Health `json:"peers,omitempty"`
}

// Config of a Member. All fields are needed.
type Config struct {
	State state.Store
	// Status is what this control plane has to say. It is called often.
	Status func() Status
	// Changed is called when this control plane has come to lead, or leads no more.
	Changed func()
	Log     *slog.Logger
}

// Member is one control plane among those of its mesh.
type Member struct {
	Config
	// Name tells it from the others, and from itself before a restart.
	Name   string
	shared bool

	mu     sync.Mutex        // guards all below
	own    state.Lease       // by which the others know that this one lives
	lead   state.Lease       // the last that this one had
	until  time.Time         // this process may rely on it
	others map[string]Status // by name; those that live
}

// New makes a Member, and tells the others.
func New(ctx context.Context, c Config) (*Member, error) {
	m := &Member{Config: c, Name: rand.Text(), shared: c.State.Shared(), others: map[string]Status{}}
	if !m.shared {
		return m, nil
	}
	return m, m.renew(ctx, Status{})
}

// Alone says that there can be no other control plane.
func (m *Member) Alone() bool { return !m.shared }

// Leads says whether this control plane is the one that does what only one may do: keep up with peers, take a
// rotation of the root from step to step, remove what is long past. It is to be written to the store that is
// returned.
func (m *Member) Leads() (state.Store, bool) {
	if !m.shared {
		return m.State, true
	}
	m.mu.Lock()
	l, until := m.lead, m.until
	m.mu.Unlock()
	return m.State.Under(l), time.Now().Before(until)
}

// Leader is what the control plane says that leads, unless it is this one.
func (m *Member) Leader() (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.others {
		if s.Leads {
			return s, true
		}
	}
	return Status{}, false
}

// Lives says whether a control plane does.
func (m *Member) Lives(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, lives := m.others[name]
	return lives || name == m.Name
}

// Others are what the other control planes that live say, by name.
func (m *Member) Others() map[string]Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]Status, len(m.others))
	for name, s := range m.others {
		out[name] = s
	}
	return out
}

// Run keeps the leases, until ctx ends.
func (m *Member) Run(ctx context.Context) error {
	if !m.shared {
		<-ctx.Done()
		return nil
	}
	defer m.leave(context.WithoutCancel(ctx))
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var said []byte
	var renewed time.Time
	failed := false
	for {
		status := m.Status()
		brief := status
		brief.Peers = nil // which changes all the time, and can wait
		now, err := json.Marshal(brief)
		if err != nil {
			return err
		}
		if !bytes.Equal(said, now) || time.Since(renewed) >= renewEvery {
			err := m.renew(ctx, status)
			if err == nil {
				said, renewed = now, time.Now()
			} else if !failed && ctx.Err() == nil {
				m.Log.Error("lease not renewed: what only one control plane may do is left to another", "error", err)
			}
			failed = err != nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// renew says that this control plane lives, asks for the lead, and looks who else is there.
func (m *Member) renew(ctx context.Context, s Status) error {
	ctx, cancel := context.WithTimeout(ctx, sureFor)
	defer cancel()
	asked := time.Now()
	lead, err := m.State.Acquire(ctx, leader, m.Name, nil, leaseTTL)
	if err != nil && !errors.Is(err, state.ErrExists) {
		return err
	}
	until := time.Time{}
	if err == nil {
		until = asked.Add(sureFor)
	}
	s.Leads = err == nil
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	own, err := m.State.Acquire(ctx, prefix+m.Name, m.Name, data, leaseTTL)
	if err != nil {
		return err
	}
	all, err := m.State.Leases(ctx, prefix)
	if err != nil {
		return err
	}
	others := map[string]Status{}
	for _, l := range all {
		var s Status
		if err := json.Unmarshal(l.Data, &s); err != nil {
			return err
		}
		if l.Holder != m.Name {
			others[l.Holder] = s
		}
	}
	m.mu.Lock()
	changed := s.Leads != (m.lead.Token > 0) || s.Leads && lead.Token != m.lead.Token
	m.own, m.lead, m.until, m.others = own, lead, until, others
	m.mu.Unlock()
	if changed {
		m.Log.Info("this control plane does what only one may do", "leads", s.Leads)
		m.Changed()
	}
	return nil
}

// leave gives up what it holds, for others to take at once.
func (m *Member) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	m.mu.Lock()
	all := []state.Lease{m.own, m.lead}
	m.until = time.Time{}
	m.mu.Unlock()
	for _, l := range all {
		if l.Token == 0 {
			continue
		}
		if err := m.State.Release(ctx, l); err != nil {
			m.Log.Warn("lease not released, it ends by itself", "lease", l.Name, "error", err)
			return
		}
	}
}

// Holders joins what this control plane knows of proxies with what the others do: a proxy counts as the one to which
// it is connected sees it.
func (m *Member) Holders(here []xds.Holder) []xds.Holder {
	best := map[string]xds.Holder{}
	lists := [][]xds.Holder{here}
	for _, s := range m.Others() {
		lists = append(lists, s.Holders)
	}
	for _, list := range lists {
		for _, h := range list {
			if was, known := best[h.Proxy]; !known || h.Connected && !was.Connected {
				best[h.Proxy] = h
			}
		}
	}
	out := make([]xds.Holder, 0, len(best))
	for _, h := range best {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b xds.Holder) int { return bytes.Compare([]byte(a.Proxy), []byte(b.Proxy)) })
	return out
}
