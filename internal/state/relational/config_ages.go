package relational

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// ConfigAges implements state.Store.
func (d *DB) ConfigAges(ctx context.Context) ([]state.ConfigAge, error) {
	return list(ctx, d, "config-ages", scanConfigAge)
}

func scanConfigAge(s scanner) (state.ConfigAge, error) {
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
}

// KeepConfigAges implements state.Store.
func (d *DB) KeepConfigAges(ctx context.Context, c state.AgeChange) (kept []state.ConfigAge, err error) {
	err = d.inTx(ctx, "keep the age of configuration", func(ctx context.Context, t *tx) error {
		if err := t.eachAge(ctx, "delete-config-ages", c.Gone); err != nil {
			return err
		}
		fresh, err := t.younger(ctx, c.New)
		if err != nil {
			return err
		}
		all := slices.Concat(c.Known, fresh)
		if err := t.eachAge(ctx, "put-config-ages", all); err != nil || len(all) == 0 {
			return err
		}
		text, err := rowsOfAges(all)
		if err != nil {
			return err
		}
		kept, err = listIn(ctx, t, "config-ages-of", scanConfigAge, text)
		return err
	})
	return kept, err
}

// younger returns the new objects with their times shifted so that they are younger than any stored one.
func (t *tx) younger(ctx context.Context, fresh []state.ConfigAge) ([]state.ConfigAge, error) {
	if len(fresh) == 0 {
		return nil, nil
	}
	var youngest time.Time
	if err := t.scan(ctx, "youngest-config-age", []any{timeOf{&youngest}}); err != nil {
		return nil, err
	}
	first := slices.MinFunc(fresh, func(a, b state.ConfigAge) int { return a.FirstSeen.Compare(b.FirstSeen) }).FirstSeen
	late := max(0, youngest.Add(time.Microsecond).Sub(first))
	out := slices.Clone(fresh)
	for i := range out {
		out[i].FirstSeen = out[i].FirstSeen.Add(late)
	}
	return out, nil
}

// eachAge runs a statement with a list of ages.
func (t *tx) eachAge(ctx context.Context, name string, ages []state.ConfigAge) error {
	if len(ages) == 0 {
		return nil
	}
	text, err := rowsOfAges(ages)
	if err == nil {
		_, err = t.exec(ctx, name, text)
	}
	return err
}

func rowsOfAges(ages []state.ConfigAge) (string, error) {
	rows := make([][5]any, len(ages))
	for i, a := range ages {
		rows[i] = [5]any{a.Key.Kind, a.Key.Namespace, a.Key.Name, url.PathEscape(a.File), a.FirstSeen.UnixMicro()}
	}
	return encode(rows)
}
