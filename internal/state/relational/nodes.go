package relational

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// AttestNode writes a node that proved itself by a token: a new one, or a known one that joins again.
// Joining again begins a new generation and ends a revocation; RevokeNode sees to it that this takes a token made after
// it: ErrRevoked otherwise.
func (d *DB) AttestNode(ctx context.Context, n state.Node) error {
	grants, err := encode(n.Grant)
	if err != nil {
		return err
	}
	return d.inTx(ctx, "attest node", func(ctx context.Context, t *tx) error {
		if n.Role == snapshot.RoleGateway { // which has none
			if _, err := t.exec(ctx, "delete-workloads", n.Name); err != nil {
				return err
			}
		}
		changed, err := t.exec(ctx, "attest-node", n.Name, string(n.Role), n.Generation, grants, stamp(n.Attested))
		if err == nil && changed == 0 {
			err = fmt.Errorf("attest node %q: %w", n.Name, state.ErrRevoked)
		}
		return err
	})
}

// Node reads one node; ErrNotFound when there is none.
func (d *DB) Node(ctx context.Context, name string) (state.Node, error) {
	return one(ctx, d, "node", scanNode, name)
}

// NodeOf reads the node of a generation; ErrNotFound when there is none (any more).
func (d *DB) NodeOf(ctx context.Context, generation string) (state.Node, error) {
	return one(ctx, d, "node-of", scanNode, generation)
}

// Nodes reads all, the revoked ones too, sorted by name.
func (d *DB) Nodes(ctx context.Context) ([]state.Node, error) { return list(ctx, d, "nodes", scanNode) }

// RegisterNode replaces what is known of a node by its reports: its gateway part and all its workloads.
// ErrRevoked for a node that is revoked or was never attested.
func (d *DB) RegisterNode(ctx context.Context, n snapshot.Node, workloads []snapshot.Workload, now time.Time) error {
	var gateway, reached any
	if n.Gateway != nil {
		text, err := encode(n.Gateway)
		if err != nil {
			return err
		}
		gateway = text
	}
	if n.Reached.IsValid() {
		reached = n.Reached.String()
	}
	return d.inTx(ctx, "register node", func(ctx context.Context, t *tx) error {
		changed, err := t.exec(ctx, "register-node", gateway, reached, stamp(now), n.Name)
		if err != nil {
			return err
		}
		if changed == 0 {
			return fmt.Errorf("register node %q: %w", n.Name, state.ErrRevoked)
		}
		if _, err := t.exec(ctx, "delete-workloads", n.Name); err != nil {
			return err
		}
		return t.addWorkloads(ctx, n.Name, workloads)
	})
}

func (t *tx) addWorkloads(ctx context.Context, node string, workloads []snapshot.Workload) error {
	for _, w := range workloads {
		w.Node = node
		text, err := encode(w)
		if err != nil {
			return err
		}
		n, err := t.exec(ctx, "add-workload", node, w.Namespace, w.Name, text)
		if err == nil && n == 0 {
			err = state.ErrExists
		}
		if err != nil {
			return fmt.Errorf("workload %s/%s: %w", w.Namespace, w.Name, err)
		}
	}
	return nil
}

// RevokeNode shuts a node out: its workloads go, and with them every token made for it, also one whose joining is under
// way.
func (d *DB) RevokeNode(ctx context.Context, name string, now time.Time) error {
	return d.inTx(ctx, "revoke node", func(ctx context.Context, t *tx) error {
		n, err := t.exec(ctx, "revoke-node", stamp(now), name)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("revoke node %q: %w", name, state.ErrNotFound)
		}
		if _, err := t.exec(ctx, "delete-workloads", name); err != nil {
			return err
		}
		_, err = t.exec(ctx, "cancel-tokens", stamp(now), name)
		return err
	})
}

// Registry reads the nodes that are not revoked, and all workloads.
func (d *DB) Registry(ctx context.Context) (*snapshot.Registry, error) {
	nodes, err := d.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	r := &snapshot.Registry{}
	for _, n := range nodes {
		if n.Revoked.IsZero() {
			r.Nodes = append(r.Nodes, n.Node)
		}
	}
	r.Workloads, err = list(ctx, d, "workloads", func(s scanner) (snapshot.Workload, error) {
		var w snapshot.Workload
		err := s.Scan(jsonOf{&w})
		return w, err
	})
	return r, err
}

func scanNode(s scanner) (state.Node, error) {
	var n state.Node
	err := s.Scan(&n.Name, &n.Role, &n.Generation, jsonOf{&n.Grant}, jsonOf{&n.Gateway}, addrOf{&n.Reached}, timeOf{&n.Attested},
		timeOf{&n.LastSeen}, timeOf{&n.Revoked})
	return n, err
}
