package relational

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// EstablishPeer implements state.Store.
func (d *DB) EstablishPeer(
	ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time,
) error {
	seq, err := sequenceOf(sequence)
	if err != nil {
		return err
	}
	text, err := encode(object)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, "establish-peer", object.Name, text, timeValue(now), roots, seq, timeValue(now))
	return err
}

// Peers implements state.Store.
func (d *DB) Peers(ctx context.Context) ([]state.Peer, error) { return list(ctx, d, "peers", scanPeer) }

// SetPeerBundle implements state.Store.
func (d *DB) SetPeerBundle(ctx context.Context, name string, roots []byte, sequence, held uint64, now time.Time) error {
	seq, err1 := sequenceOf(sequence)
	was, err2 := sequenceOf(held)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("bundle of peer %q: %w", name, err)
	}
	return d.replace(ctx, name, "set-bundle", name, roots, seq, timeValue(now), was)
}

// AdoptPeerRoots implements state.Store.
func (d *DB) AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error {
	return d.unlessRevoked(ctx, name, "adopt-roots", name, roots, timeValue(now))
}

// SetPeerCatalogue implements state.Store.
func (d *DB) SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue, held uint64) error {
	text, err := encode(c)
	if err != nil {
		return err
	}
	return d.replace(ctx, name, "set-catalogue", name, text, fmt.Sprint(c.Sequence), fmt.Sprint(held))
}

// SetPeerReadiness implements state.Store.
func (d *DB) SetPeerReadiness(ctx context.Context, name string, r snapshot.Readiness, held uint64) error {
	text, err := encode(r)
	if err != nil {
		return err
	}
	return d.replace(ctx, name, "set-readiness", name, text, fmt.Sprint(r.Sequence), fmt.Sprint(held))
}

// replace runs a statement that writes only if what it replaces still exists.
func (d *DB) replace(ctx context.Context, name, statement string, args ...any) error {
	return d.inTx(ctx, statement, func(ctx context.Context, t *tx) error {
		n, err := t.exec(ctx, statement, args...)
		if err != nil || n > 0 {
			return err
		}
		var revoked int
		if err := t.scan(ctx, "revoked-peer", []any{&revoked}, name); err != nil {
			return err
		}
		if revoked > 0 {
			return fmt.Errorf("peer %q: %w", name, state.ErrRevoked)
		}
		return fmt.Errorf("peer %q has said something else since: %w", name, state.ErrSuperseded)
	})
}

func (d *DB) unlessRevoked(ctx context.Context, name, statement string, args ...any) error {
	n, err := d.exec(ctx, statement, args...)
	if err == nil && n == 0 {
		err = fmt.Errorf("peer %q: %w", name, state.ErrRevoked)
	}
	return err
}

// SetPeerObject implements state.Store.
func (d *DB) SetPeerObject(ctx context.Context, object *v1alpha1.MeshPeer) error {
	text, err := encode(object)
	if err != nil {
		return err
	}
	return d.unlessRevoked(ctx, object.Name, "set-peer-object", text, object.Name)
}

// SetPeerSuspended implements state.Store.
func (d *DB) SetPeerSuspended(ctx context.Context, name string, suspended bool) error {
	_, err := d.exec(ctx, "set-suspended", name, boolValue(suspended))
	return err
}

// RevokePeer implements state.Store.
func (d *DB) RevokePeer(ctx context.Context, name string, now time.Time) error {
	return d.inTx(ctx, "revoke peer", func(ctx context.Context, t *tx) error {
		if _, err := t.exec(ctx, "revoke-peer", name, timeValue(now)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "cancel-invites", name)
		return err
	})
}

// NextSequence implements state.Store.
func (d *DB) NextSequence(ctx context.Context, name, of string, now time.Time) (uint64, error) {
	var n int64
	err := d.inTx(ctx, "next-sequence", func(ctx context.Context, t *tx) error {
		return t.scan(ctx, "next-sequence", []any{&n}, name, now.UnixMicro(), of)
	})
	return uint64(n), err
}

func sequenceOf(n uint64) (int64, error) {
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("sequence %d is beyond %d: %w", n, math.MaxInt64, state.ErrSequence)
	}
	return int64(n), nil
}

func scanPeer(s scanner) (state.Peer, error) {
	var p state.Peer
	err := s.Scan(&p.Name, jsonOf{&p.Object}, timeOf{&p.Made}, &p.State.Roots, &p.State.BundleSequence,
		timeOf{&p.State.BundleTime},
		&p.State.Suspended, timeOf{&p.Revoked}, jsonOf{&p.State.Catalogue},
		jsonOf{&p.State.Readiness})
	return p, err
}
