package relational

import (
	"context"

	"isthmus.dev/isthmus/internal/state"
)

// Quarantines implements state.Store.
func (d *DB) Quarantines(ctx context.Context) ([]state.Quarantine, error) {
	return list(ctx, d, "quarantine", func(s scanner) (state.Quarantine, error) {
		var q state.Quarantine
		err := s.Scan(&q.Proxy, &q.Object.Kind, &q.Object.Namespace, &q.Object.Name, &q.Content, &q.Reason,
			timeOf{&q.Since})
		return q, err
	})
}

// ChangeQuarantines implements state.Store.
func (d *DB) ChangeQuarantines(ctx context.Context, add, end []state.Quarantine) error {
	return d.inTx(ctx, "keep quarantines", func(ctx context.Context, t *tx) error {
		for _, q := range end {
			if _, err := t.exec(ctx, "delete-quarantine", q.Proxy, q.Object.Kind, q.Object.Namespace,
				q.Object.Name); err != nil {
				return err
			}
		}
		for _, q := range add {
			if _, err := t.exec(ctx, "put-quarantine", q.Proxy, q.Object.Kind, q.Object.Namespace, q.Object.Name,
				q.Content, q.Reason, timeValue(q.Since)); err != nil {
				return err
			}
		}
		return nil
	})
}
