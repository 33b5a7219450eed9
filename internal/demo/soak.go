package demo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// soak runs the demo under load with short-lived certificates and disturbs it for a given time. It returns an error if
// a request failed other than by the kill of its Envoy, or if a process grew too much.
func (w *world) soak(ctx context.Context, say printer, length time.Duration) error {
	for _, m := range w.plan.meshes {
		if err := w.setTTL(m, "5m", shortLife); err != nil {
			return err
		}
	}
	customers, err := w.customers(ctx)
	if err != nil {
		return err
	}
	if err := w.standBy(); err != nil {
		return err
	}
	t := &traffic{w: w, customers: customers}
	defer t.end()
	// The first round does not count: it fills caches and pools.
	if err := t.round(ctx, say, time.Time{}); err != nil {
		return err
	}
	before, err := w.footprints(ctx)
	if err != nil {
		return err
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := t.round(ctx, say, end); err != nil {
			return err
		}
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := t.count(ctx, say, calm); err != nil {
		return err
	}
	after, err := w.footprints(ctx)
	if err != nil {
		return err
	}
	say.text("\n" + t.table())
	return errors.Join(t.verdict(), reportGrowth(say, before, after))
}

// round runs each disturbance once, or until end.
func (t *traffic) round(ctx context.Context, say printer, end time.Time) error {
	for _, d := range disturbances {
		if !end.IsZero() && time.Now().After(end) {
			return nil
		}
		say.step("%s, %s", d.name, time.Now().UTC().Format(clock))
		if err := t.through(ctx, say, d); err != nil {
			return fmt.Errorf("soak: %s: %w", d.name, err)
		}
	}
	return nil
}

func (t *traffic) through(ctx context.Context, say printer, d disturbance) error {
	if d.kind != calm {
		if err := t.count(ctx, say, calm); err != nil {
			return err
		}
	}
	if err := t.begin(); err != nil {
		return err
	}
	began := time.Now()
	err := d.do(ctx, t.w)
	t.events = append(t.events, event{d.name, began, time.Now()})
	if err != nil {
		return err
	}
	switch d.kind {
	case calm:
		return pause(ctx, 2*time.Second)
	case loss:
		t.losses++
	case rough:
		t.slowest = max(t.slowest, time.Since(began))
	}
	return t.count(ctx, say, d.kind)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
