package meshd

import (
	"context"
	"errors"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// followRetry is the pause before a failed update from the state is retried.
const followRetry = time.Second

// follower says how what is written under some topics of the state takes effect here.
type follower struct {
	topics []state.Topic
	// own: this is done for what this process wrote too, since it reads that from the state alone.
	own bool
	// one reads what was written under one key. Nil: only all can be read.
	one func(d *Daemon, ctx context.Context, key string) error
	// all reads everything under the topics.
	all func(*Daemon, context.Context) error
}

// followers cover every topic, in the order in which they are read when everything must be.
var followers = []follower{
	{topics: []state.Topic{state.Nodes}, one: (*Daemon).readNode, all: (*Daemon).readNodes},
	{topics: []state.Topic{state.Peers, state.Invitations}, own: true, all: (*Daemon).readPeers},
	{topics: []state.Topic{state.Agents}, one: (*Daemon).readAgent, all: (*Daemon).readAgents},
	{topics: []state.Topic{state.Admins}, all: (*Daemon).readAdmins},
	{topics: []state.Topic{state.Authority}, own: true, all: (*Daemon).readAuthority},
	{topics: []state.Topic{state.Addresses}, all: (*Daemon).readAddresses},
	{topics: []state.Topic{state.Quarantined}, all: (*Daemon).readQuarantined},
	{topics: []state.Topic{state.Ages}, all: (*Daemon).readAges},
}

// followerOf returns the follower of a topic, or nil for state.Everything.
func followerOf(topic state.Topic) *follower {
	for i, f := range followers {
		if slices.Contains(f.topics, topic) {
			return &followers[i]
		}
	}
	return nil
}

// followState applies what this and other control planes write to the state, until ctx is done. It retries what fails,
// so that a stored revocation always takes effect.
func (d *Daemon) followState(ctx context.Context) error {
	waiting := map[state.Change]bool{}
	for {
		var again <-chan time.Time
		if len(waiting) > 0 {
			again = time.After(followRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case changes := <-d.changes:
			for _, c := range changes {
				waiting[folded(c)] = true
			}
		case <-d.expired:
			waiting[state.Change{Topic: state.Peers}] = true
		case <-again:
		}
		for c := range waiting {
			if err := d.applyChange(ctx, c); err != nil {
				if ctx.Err() == nil {
					d.log.Error("a stored change has not taken effect yet, trying again", "topic", string(c.Topic), "key",
						c.Key,
						"error", err, "again", followRetry)
				}
				continue
			}
			delete(waiting, c)
		}
	}
}

// folded returns a change that stands for all those that are applied by reading the same.
func folded(c state.Change) state.Change {
	f := followerOf(c.Topic)
	if f == nil || f.one != nil {
		return c
	}
	return state.Change{Topic: f.topics[0], Here: c.Here && !f.own}
}

// reread requests that peers and invitations be read again. It never blocks.
func (d *Daemon) reread() {
	select {
	case d.expired <- struct{}{}:
	default:
	}
}

// applyChange applies one change. This control plane already knows its own writes, except for what snapshots contain.
func (d *Daemon) applyChange(ctx context.Context, c state.Change) error {
	f := followerOf(c.Topic)
	switch {
	case f == nil:
		return d.readEverything(ctx)
	case c.Here && c.Topic == state.Nodes:
		d.store.Written()
		return nil
	case c.Here && !f.own:
		return nil
	case f.one != nil && c.Key != "":
		return f.one(d, ctx, c.Key)
	}
	return f.all(d, ctx)
}

// readEverything stops at nodes that cannot be read: what was valid stays valid while the state is away.
func (d *Daemon) readEverything(ctx context.Context) error {
	if err := followers[0].all(d, ctx); err != nil {
		return err
	}
	var failed []error
	for _, f := range followers[1:] {
		failed = append(failed, f.all(d, ctx))
	}
	return errors.Join(failed...)
}

// readNode reads that a node has joined, registered or was revoked.
func (d *Daemon) readNode(ctx context.Context, name string) error {
	d.standing.Forget(name)
	err := d.store.ReloadNode(ctx, name)
	d.door.RecheckNode(ctx, name)
	if _, _, registered := d.store.Said(name); err == nil && !registered {
		d.agents.Forgive(name)
	}
	return err
}

func (d *Daemon) readNodes(ctx context.Context) error {
	if err := d.store.ReloadNodes(ctx); err != nil {
		return err
	}
	d.standing.ForgetAll()
	d.door.Recheck(ctx)
	return nil
}

func (d *Daemon) readPeers(ctx context.Context) error { return d.store.Reload(ctx) }

func (d *Daemon) readAgent(ctx context.Context, node string) error { return d.agents.Reload(ctx, node) }

func (d *Daemon) readAgents(ctx context.Context) error { return d.agents.ReloadAll(ctx) }

func (d *Daemon) readAdmins(ctx context.Context) error {
	d.standing.ForgetAll() // changes are few and rare
	err := d.agents.ReloadAdmins(ctx)
	d.door.Recheck(ctx)
	return err
}

func (d *Daemon) readAuthority(ctx context.Context) error {
	err := d.authority.Reload(ctx)
	d.store.ReloadRoots()
	d.door.Recheck(ctx) // the old root may be withdrawn
	return err
}

func (d *Daemon) readAddresses(ctx context.Context) error { return d.store.ReloadAddresses(ctx) }

func (d *Daemon) readQuarantined(ctx context.Context) error { return d.containment.Reload(ctx) }

func (d *Daemon) readAges(ctx context.Context) error { return d.source.ReloadAges(ctx) }
