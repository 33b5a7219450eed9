package relational

import (
	"context"
	"fmt"
	"net/url"

	"isthmus.dev/isthmus/internal/state"
)

// ConfigAges reads all, the oldest first.
func (d *DB) ConfigAges(ctx context.Context) ([]state.ConfigAge, error) {
	return list(ctx, d, "config-ages", func(s scanner) (state.ConfigAge, error) {
		var a state.ConfigAge
		var file string
		if err := s.Scan(&a.Key.Kind, &a.Key.Namespace, &a.Key.Name, &file, timeOf{&a.FirstSeen}); err != nil {
			return a, err
		}
		var err error
		if a.File, err = url.PathUnescape(file); err != nil {
			return a, fmt.Errorf("a file name is kept as %q: %w", file, err)
		}
		return a, nil
	})
}

// SetConfigAges writes some and removes others, all or none.
func (d *DB) SetConfigAges(ctx context.Context, put, remove []state.ConfigAge) error {
	return d.inTx(ctx, "keep the age of configuration", func(ctx context.Context, t *tx) error {
		for _, change := range []struct {
			query string
			ages  []state.ConfigAge
		}{{"delete-config-ages", remove}, {"put-config-ages", put}} {
			if len(change.ages) == 0 {
				continue
			}
			rows := make([][5]any, len(change.ages))
			for i, a := range change.ages {
				rows[i] = [5]any{
					a.Key.Kind, a.Key.Namespace, a.Key.Name, url.PathEscape(a.File),
					a.FirstSeen.UnixMicro(),
				}
			}
			text, err := encode(rows)
			if err != nil {
				return err
			}
			if _, err := t.exec(ctx, change.query, text); err != nil {
				return err
			}
		}
		return nil
	})
}
