// Package replicas coordinates several control planes of one mesh: tasks that only one may do are done by the holder of
// a lease, and each control plane publishes its status for the others.
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
	// leaseTTL is how long a lease lasts without renewal, and so how long the tasks of a dead control plane wait.
	leaseTTL = 6 * time.Second
	// renewEvery is how often leases are renewed and the others' status read.
	renewEvery = 2 * time.Second
	// sureFor is how long after its request a control plane relies on a lease. It is less than the lease lasts, to
	// allow for clock drift.
	sureFor = 4 * time.Second
	// statusEvery is how often the status is checked for changes.
	statusEvery = 500 * time.Millisecond
	// leader is the leader's lease. prefix starts the names of the leases by which each control plane shows that it is
	// alive.
	leader = "leader"
	prefix = "control plane/"
)

// Status is what a control plane publishes for the others.
type Status struct {
	// Roots are the published roots by trust domain: SHA-256 of the PEM, hex.
	Roots map[string]string `json:"roots,omitempty"`
	// Lacking are the trust domains whose roots some connected proxy has not acknowledged.
	Lacking []string `json:"lacking,omitempty"`
	// Holders are the proxies that should have the mesh's own roots, while a rotation waits for them.
	Holders []xds.Holder `json:"holders,omitempty"`
	// Leads means that it is the leader. Peers is the leader's state of the exchange with each peer, by name.
	Leads bool                         `json:"leads,omitempty"`
	Peers map[string]federation.Health `json:"peers,omitempty"`
}

// Config of a Member. All fields are required.
type Config struct {
	State state.Store
	// Status returns this control plane's status. It is called often.
	Status func() Status
	// Changed is called when this control plane has become the leader or stopped being it.
	Changed func()
	Log     *slog.Logger
}

// Member is one control plane of a mesh.
type Member struct {
	Config
	// Name is unique among control planes and restarts.
	Name   string
	shared bool

	mu     sync.Mutex        // guards the fields below
	own    state.Lease       // shows the others that this one is alive
	lead   state.Lease       // the last one that this process held
	until  time.Time         // how long this process may rely on it
	others map[string]Status // by name; those that are alive
}

// New returns a Member and publishes its status.
func New(ctx context.Context, c Config) (*Member, error) {
	m := &Member{Config: c, Name: rand.Text(), shared: c.State.Shared(), others: map[string]Status{}}
	if !m.shared {
		return m, nil
	}
	return m, m.renew(ctx, Status{})
}

// Alone reports whether there can be no other control plane.
func (m *Member) Alone() bool { return !m.shared }

// Leads reports whether this control plane is the leader, which keeps up with peers, advances root rotations and
// removes expired data. It must write with the returned store.
func (m *Member) Leads() (state.Store, bool) {
	if !m.shared {
		return m.State, true
	}
	m.mu.Lock()
	l, until := m.lead, m.until
	m.mu.Unlock()
	return m.State.Under(l), time.Now().Before(until)
}

// Leader returns the leader's status, unless this is the leader.
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

// Lives reports whether a control plane is alive.
func (m *Member) Lives(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, lives := m.others[name]
	return lives || name == m.Name
}

// Others returns the status of the other live control planes, by name.
func (m *Member) Others() map[string]Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]Status, len(m.others))
	for name, s := range m.others {
		out[name] = s
	}
	return out
}

// Run keeps the leases until ctx is done.
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
		brief.Peers = nil // it changes all the time and can wait
		now, err := json.Marshal(brief)
		if err != nil {
			return err
		}
		if !bytes.Equal(said, now) || time.Since(renewed) >= renewEvery {
			err := m.renew(ctx, status)
			if err == nil {
				said, renewed = now, time.Now()
			} else if !failed && ctx.Err() == nil {
				m.Log.Error("lease not renewed: this control plane does not lead any more", "error", err)
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

// renew renews the own lease, requests the leader's lease, and reads the others'.
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
		m.Log.Info("this control plane leads", "leads", s.Leads)
		m.Changed()
	}
	return nil
}

// leave releases its leases, so that others can take over at once.
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
			m.Log.Warn("lease not released, it will expire", "lease", l.Name, "error", err)
			return
		}
	}
}

// Holders merges the proxies known here with those of the other control planes. The control plane to which a proxy is
// connected decides.
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
