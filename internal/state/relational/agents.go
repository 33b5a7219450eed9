package relational

import (
	"context"
	"fmt"

	"isthmus.dev/isthmus/internal/state"
)

// PutAgent implements state.Store.
func (d *DB) PutAgent(ctx context.Context, a state.Agent) error {
	n, err := d.exec(ctx, "put-agent", a.Node, int64(a.Conversation), a.Holder, orEmpty(a.Report))
	if err == nil && n == 0 {
		err = fmt.Errorf("conversation of node %q: %w", a.Node, state.ErrSuperseded)
	}
	return err
}

// EndAgent implements state.Store.
func (d *DB) EndAgent(ctx context.Context, node string, conversation uint64) error {
	_, err := d.exec(ctx, "end-agent", node, int64(conversation))
	return err
}

// Agent implements state.Store.
func (d *DB) Agent(ctx context.Context, node string) (state.Agent, error) {
	return one(ctx, d, "agent", scanAgent, node)
}

// Agents implements state.Store.
func (d *DB) Agents(ctx context.Context) ([]state.Agent, error) {
	return list(ctx, d, "agents", scanAgent)
}

func scanAgent(s scanner) (a state.Agent, err error) {
	err = s.Scan(&a.Node, &a.Conversation, &a.Holder, &a.Report)
	return a, err
}
