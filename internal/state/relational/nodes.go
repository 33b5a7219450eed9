package relational

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// AttestNode implements state.Store.
func (d *DB) AttestNode(ctx context.Context, n state.Node) error {
	grants, err := encode(n.Grant)
	if err != nil {
		return err
	}
	return d.inTx(ctx, "attest node", func(ctx context.Context, t *tx) error {
		if n.Role == snapshot.RoleGateway { // a gateway has none
			for _, name := range []string{"delete-workloads", "delete-addresses"} {
				if _, err := t.exec(ctx, name, n.Name); err != nil {
					return err
				}
			}
		}
		changed, err := t.exec(ctx, "attest-node", n.Name, string(n.Role), n.Generation, grants, timeValue(n.Attested))
		if err == nil && changed == 0 {
			err = fmt.Errorf("attest node %q: %w", n.Name, state.ErrRevoked)
		}
		return err
	})
}

// Node implements state.Store.
func (d *DB) Node(ctx context.Context, name string) (state.Node, error) {
	return one(ctx, d, "node", scanNode, name)
}

// NodeOf implements state.Store.
func (d *DB) NodeOf(ctx context.Context, generation string) (state.Node, error) {
	return one(ctx, d, "node-of", scanNode, generation)
}

// Nodes implements state.Store.
func (d *DB) Nodes(ctx context.Context) ([]state.Node, error) { return list(ctx, d, "nodes", scanNode) }

// BeginConversation implements state.Store.
func (d *DB) BeginConversation(ctx context.Context, node, generation string) (n uint64, err error) {
	err = d.inTx(ctx, "begin-conversation", func(ctx context.Context, t *tx) error {
		err := t.scan(ctx, "begin-conversation", []any{&n}, node, generation)
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("node %q: %w", node, state.ErrNotFound)
		}
		return err
	})
	return n, err
}

// RegisterNode implements state.Store.
func (d *DB) RegisterNode(ctx context.Context, r state.Registration, now time.Time) error {
	var gateway, reached any
	if r.Node.Gateway != nil {
		text, err := encode(r.Node.Gateway)
		if err != nil {
			return err
		}
		gateway = text
	}
	if r.Node.Reached.IsValid() {
		reached = r.Node.Reached.String()
	}
	workloads, addresses, err := rowsOf(r)
	if err != nil {
		return err
	}
	return d.inTx(ctx, "register node", func(ctx context.Context, t *tx) error {
		changed, err := t.exec(ctx, "register-node", gateway, reached, timeValue(now), r.Node.Name,
			int64(r.Conversation),
			r.Node.Builtin)
		if err == nil && changed == 0 {
			err = t.unregistered(ctx, r.Node.Name)
		}
		if err != nil {
			return err
		}
		for _, name := range []string{"delete-workloads", "delete-addresses"} {
			if _, err := t.exec(ctx, name, r.Node.Name); err != nil {
				return err
			}
		}
		return errors.Join(t.addAll(ctx, "add-workloads", r.Node.Name, workloads),
			t.addAll(ctx, "add-addresses", r.Node.Name, addresses))
	})
}

// rowsOf returns a registration's workloads and their addresses as rows.
func rowsOf(r state.Registration) (workloads, addresses [][]string, err error) {
	seen := map[netip.Addr]bool{}
	for _, w := range r.Workloads {
		w.Node = r.Node.Name
		text, err := encode(w)
		if err != nil {
			return nil, nil, err
		}
		workloads = append(workloads, []string{w.Namespace, w.Name, text})
		for _, a := range w.Addresses {
			if !seen[a] {
				seen[a] = true
				addresses = append(addresses, []string{a.String()})
			}
		}
	}
	return workloads, addresses, nil
}

// addAll adds rows of a node. It returns ErrExists if one of them exists.
func (t *tx) addAll(ctx context.Context, name, node string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	text, err := encode(rows)
	if err != nil {
		return err
	}
	n, err := t.exec(ctx, name, node, text)
	if err == nil && n != int64(len(rows)) {
		err = fmt.Errorf("%s of node %s: another one has one of them: %w", name, node, state.ErrExists)
	}
	return err
}

// unregistered returns why a node could not be registered.
func (t *tx) unregistered(ctx context.Context, node string) error {
	var conversation int64
	err := t.scan(ctx, "conversation-of", []any{&conversation}, node)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("register node %q: %w", node, state.ErrRevoked)
	case err != nil:
		return err
	}
	return fmt.Errorf("register node %q: it has spoken since: %w", node, state.ErrSuperseded)
}

// Registration implements state.Store.
func (d *DB) Registration(ctx context.Context, node string) (state.Registration, error) {
	r, err := one(ctx, d, "registration", func(s scanner) (state.Registration, error) {
		var r state.Registration
		err := s.Scan(&r.Node.Name, &r.Node.Role, jsonOf{&r.Node.Gateway}, addrOf{&r.Node.Reached},
			&r.Node.Builtin, &r.Conversation, &r.Generation)
		return r, err
	}, node)
	if err != nil {
		return r, err
	}
	r.Workloads, err = list(ctx, d, "workloads-of", scanWorkload, node)
	return r, err
}

// RevokeNode implements state.Store.
func (d *DB) RevokeNode(ctx context.Context, name string, now time.Time) error {
	return d.inTx(ctx, "revoke node", func(ctx context.Context, t *tx) error {
		n, err := t.exec(ctx, "revoke-node", timeValue(now), name)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("revoke node %q: %w", name, state.ErrNotFound)
		}
		for _, statement := range []string{"delete-workloads", "delete-addresses"} {
			if _, err := t.exec(ctx, statement, name); err != nil {
				return err
			}
		}
		_, err = t.exec(ctx, "cancel-tokens", timeValue(now), name)
		return err
	})
}

// Registry implements state.Store.
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
	r.Workloads, err = list(ctx, d, "workloads", scanWorkload)
	return r, err
}

func scanWorkload(s scanner) (w snapshot.Workload, err error) {
	err = s.Scan(jsonOf{&w})
	return w, err
}

func scanNode(s scanner) (state.Node, error) {
	var n state.Node
	err := s.Scan(&n.Name, &n.Role, &n.Generation, jsonOf{&n.Grant}, jsonOf{&n.Gateway}, addrOf{&n.Reached}, &n.Builtin,
		timeOf{&n.Attested},
		timeOf{&n.LastSeen}, timeOf{&n.Revoked})
	return n, err
}
