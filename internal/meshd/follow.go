package meshd

import (
	"context"
	"errors"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// followRetry is the pause before a failed update from the state is retried.
const followRetry = time.Second

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
				waiting[asOne(c)] = true
			}
		case <-d.expired:
			waiting[state.Change{Topic: state.Peers}] = true
		case <-again:
		}
		for c := range waiting {
			if err := d.applyChange(ctx, c); err != nil {
				if ctx.Err() == nil {
					d.log.Error("what was written is not in force yet, trying again", "topic", string(c.Topic), "key",
						c.Key,
						"error", err, "again", followRetry)
				}
				continue
			}
			delete(waiting, c)
		}
	}
}

// asOne maps changes that one read covers to a single change.
func asOne(c state.Change) state.Change {
	switch c.Topic {
	case state.Peers, state.Invitations:
		return state.Change{Topic: state.Peers}
	case state.Authority:
		return state.Change{Topic: state.Authority}
	}
	return c
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
	switch {
	case c.Topic == state.Peers:
		return d.store.Reload(ctx)
	case c.Topic == state.Authority:
		return d.applyAuthority(ctx)
	case c.Here && c.Topic == state.Nodes:
		d.store.Written()
	case c.Here:
	case c.Topic == state.Nodes:
		return d.applyNode(ctx, c.Key)
	case c.Topic == state.Agents:
		return d.agents.Reload(ctx, c.Key)
	case c.Topic == state.Admins:
		return d.applyAdmins(ctx)
	case c.Topic == state.Addresses:
		return d.store.ReloadAddresses(ctx)
	case c.Topic == state.Quarantined:
		return d.containment.Reload(ctx)
	case c.Topic == state.Ages:
		return d.source.ReloadAges(ctx)
	case c.Topic == state.Everything:
		if err := d.store.ReloadNodes(ctx); err != nil {
			return err // while nothing can be read, what was valid stays valid
		}
		d.standing.ForgetAll()
		return errors.Join(d.store.Reload(ctx), d.agents.ReloadAll(ctx), d.applyAdmins(ctx), d.applyAuthority(ctx),
			d.store.ReloadAddresses(ctx), d.containment.Reload(ctx), d.source.ReloadAges(ctx))
	}
	return nil
}

// applyNode applies that a node has joined, registered or was revoked.
func (d *Daemon) applyNode(ctx context.Context, name string) error {
	d.standing.Forget(name)
	err := d.store.ReloadNode(ctx, name)
	d.door.RecheckNode(ctx, name)
	if _, _, registered := d.store.Said(name); err == nil && !registered {
		d.agents.Forgive(name)
	}
	return err
}

func (d *Daemon) applyAdmins(ctx context.Context) error {
	d.standing.ForgetAll() // changes are few and rare
	err := d.agents.ReloadAdmins(ctx)
	d.door.Recheck(ctx)
	return err
}

func (d *Daemon) applyAuthority(ctx context.Context) error {
	err := d.authority.Reload(ctx)
	d.store.ReloadRoots()
	d.door.Recheck(ctx) // the old root may be withdrawn
	return err
}
