package agents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Revoke revokes a node: its certificates become invalid and its connections are closed. That takes effect before it is
// written, even if it cannot be. unwritten says why a restart would forget it.
func (a *Agents) Revoke(ctx context.Context, node string) (unwritten string, err error) {
	if err := a.shut(ctx, node); err != nil {
		return "", err
	}
	now := a.Now()
	unwritten, err = a.Pending.CarryOut(ctx, "revocation of node "+node, func(ctx context.Context) error {
		return a.State.RevokeNode(ctx, node, now)
	})
	err = errors.Join(err, a.shut(ctx, node)) // the node may have joined again just before the write
	a.Standing.Forget(node)
	a.Log.Warn("node revoked", "node", node)
	return unwritten, err
}

// shut ends a node's current generation in memory. Even if the state cannot be read, a node that has connected to this
// control plane can be revoked.
func (a *Agents) shut(ctx context.Context, node string) error {
	known := a.Standing.EndNode(node) // before reading the state, which may take long
	if known {
		a.drop(ctx, node)
	}
	n, err := a.State.Node(ctx, node)
	switch {
	case err == nil:
		a.Standing.End(n.Generation)
	case errors.Is(err, state.ErrNotFound) || !known:
		return err
	}
	a.drop(ctx, node)
	return nil
}

// drop removes the report of a revoked node and closes its connections.
func (a *Agents) drop(ctx context.Context, node string) {
	a.Store.Forget(node)
	a.Door.Recheck(ctx)
	a.Forgive(node)
}

// RemainingCertificates returns the identities for which a revoked node still has certificates that others accept. Its
// own certificate is refused directly.
func (a *Agents) RemainingCertificates(ctx context.Context, node string) ([]adminapi.RevokedCert, error) {
	last := map[string]time.Time{}
	for _, root := range a.Authority.RootCertificates() { // certificates under other roots are not accepted
		uses, err := a.State.CertsUnder(ctx, spiffe.Fingerprint(root), a.Now())
		if err != nil {
			return nil, fmt.Errorf("node %s was revoked; which certificates of its workloads "+
				"outlast that is not known: %w", node, err)
		}
		for _, u := range uses {
			id, err := spiffe.Parse(u.SPIFFEID)
			if _, own := spiffe.NodeName(id); err == nil && !own && u.Node == node {
				if u.NotAfter.After(last[u.SPIFFEID]) {
					last[u.SPIFFEID] = u.NotAfter
				}
			}
		}
	}
	out := []adminapi.RevokedCert{}
	for _, id := range slices.Sorted(maps.Keys(last)) {
		out = append(out, adminapi.RevokedCert{SPIFFEID: id, NotAfter: last[id]})
	}
	return out, nil
}

// ReloadAdmins loads which administrator certificates were revoked earlier or by another control plane.
func (a *Agents) ReloadAdmins(ctx context.Context) error {
	all, err := a.State.Admins(ctx)
	if err != nil {
		return err
	}
	a.TellRevoked(slices.DeleteFunc(all, func(one state.Admin) bool { return one.Revoked.IsZero() }))
	return nil
}

// TellRevoked tells all agents of revoked administrator certificates.
func (a *Agents) TellRevoked(more []state.Admin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []state.Admin
	if old := a.revoked.Load(); old != nil {
		all = slices.Clone(*old)
	}
	now, told := a.Now(), map[string]bool{}
	all = slices.DeleteFunc(append(all, more...), func(one state.Admin) bool {
		known := told[one.Serial]
		told[one.Serial] = true
		return known || now.After(one.NotAfter)
	})
	a.revoked.Store(&all)
	for _, ag := range a.known {
		ag.wake()
	}
}

// revokedAdmins returns the serial numbers of revoked administrator certificates.
func (a *Agents) revokedAdmins() (serials []string) {
	for _, one := range *a.revoked.Load() {
		serials = append(serials, one.Serial)
	}
	return serials
}
