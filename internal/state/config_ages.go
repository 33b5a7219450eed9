package state

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ConfigAge is when an object of the configuration was first seen in a file.
type ConfigAge struct {
	Key       snapshot.Key
	File      string // inside the configuration folder
	FirstSeen time.Time
}

// ConfigAges reads all, the oldest first.
func (d *DB) ConfigAges(ctx context.Context) ([]ConfigAge, error) {
	return list(ctx, d, "config-ages", func(s scanner) (ConfigAge, error) {
		var a ConfigAge
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
func (d *DB) SetConfigAges(ctx context.Context, put, remove []ConfigAge) error {
	return d.inTx(ctx, "keep the age of configuration", func(ctx context.Context, t tx) error {
		for _, change := range []struct {
			query string
			ages  []ConfigAge
		}{{"delete-config-ages", remove}, {"put-config-ages", put}} {
			if len(change.ages) == 0 {
				continue
			}
			rows := make([][5]any, len(change.ages))
			for i, a := range change.ages {
				rows[i] = [5]any{a.Key.Kind, a.Key.Namespace, a.Key.Name, url.PathEscape(a.File), a.FirstSeen.UnixMicro()}
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
