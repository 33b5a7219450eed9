package state

import (
	"context"
	"fmt"
	"math"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Peer is what is known of one peer mesh beyond what files say.
type Peer struct {
	Name   string
	Object *v1alpha1.MeshPeer // made by token; nil for a peer whose object is a file
	State  snapshot.PeerState
	// Revoked is when the peering was ended by command, zero if it was not. It holds against a file too.
	Revoked time.Time
	// PushedSequence and PushedDigest are of the catalogue that the peer last took from us.
	PushedSequence uint64
	PushedDigest   string
}

// EstablishPeer writes a peering made by token: object and first roots, in place of all that was known under its name.
// It ends a suspension or revocation, since both sides have consented anew.
func (d *DB) EstablishPeer(ctx context.Context, object *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time) error {
	seq, err := sequenceOf(sequence)
	if err != nil {
		return err
	}
	text, err := encode(object)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, "establish-peer", object.Name, text, roots, seq, stamp(now))
	return err
}

// Peer reads one peer; ErrNotFound when nothing is known of it.
func (d *DB) Peer(ctx context.Context, name string) (Peer, error) {
	return one(ctx, d, "peer", scanPeer, name)
}

// Peers reads all, the revoked ones too, sorted by name.
func (d *DB) Peers(ctx context.Context) ([]Peer, error) { return list(ctx, d, "peers", scanPeer) }

// SetPeerBundle writes roots (PEM) confirmed at a time. ErrSequence when the sequence goes back, or stands still with other
// roots; ErrRevoked when the peer is.
func (d *DB) SetPeerBundle(ctx context.Context, name string, roots []byte, sequence uint64, now time.Time) error {
	seq, err := sequenceOf(sequence)
	if err != nil {
		return fmt.Errorf("bundle of peer %q: %w", name, err)
	}
	n, err := d.exec(ctx, "set-bundle", name, roots, seq, stamp(now))
	if err != nil || n == 1 {
		return err
	}
	return d.whyNot(ctx, "bundle", name, sequence)
}

// SetPeerCatalogue writes what a peer offers. ErrSequence when the sequence goes back, or stands still with other content;
// ErrRevoked when the peer is.
func (d *DB) SetPeerCatalogue(ctx context.Context, name string, c snapshot.Catalogue) error {
	seq, err := sequenceOf(c.Sequence)
	if err != nil {
		return fmt.Errorf("catalogue of peer %q: %w", name, err)
	}
	text, err := encode(c)
	if err != nil {
		return err
	}
	n, err := d.exec(ctx, "set-catalogue", name, text, seq)
	if err != nil || n == 1 {
		return err
	}
	return d.whyNot(ctx, "catalogue", name, c.Sequence)
}

// whyNot explains why a peer's newer word was not taken.
func (d *DB) whyNot(ctx context.Context, what, name string, sequence uint64) error {
	p, err := d.Peer(ctx, name)
	if err != nil {
		return err
	}
	if !p.Revoked.IsZero() {
		return fmt.Errorf("%s of peer %q: %w", what, name, ErrRevoked)
	}
	return fmt.Errorf("%s of peer %q: %w: %d is not newer than what is held", what, name, ErrSequence, sequence)
}

// SetPeerPushed writes which catalogue of ours the peer took.
func (d *DB) SetPeerPushed(ctx context.Context, name string, sequence uint64, digest string) error {
	seq, err := sequenceOf(sequence)
	if err != nil {
		return err
	}
	n, err := d.exec(ctx, "set-pushed", name, seq, digest)
	if err != nil || n == 1 {
		return err
	}
	return d.whyNot(ctx, "own catalogue", name, sequence)
}

// SetPeerSuspended suspends or resumes a peer.
func (d *DB) SetPeerSuspended(ctx context.Context, name string, suspended bool) error {
	_, err := d.exec(ctx, "set-suspended", name, suspended)
	return err
}

// RevokePeer ends a peering for good: roots, catalogue and open invitations go; a mark stays that no refresh can undo.
func (d *DB) RevokePeer(ctx context.Context, name string, now time.Time) error {
	return d.inTx(ctx, "revoke peer", func(ctx context.Context, t tx) error {
		if _, err := t.exec(ctx, "revoke-peer", name, stamp(now)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "cancel-invites", name)
		return err
	})
}

// ForgetPeer removes all that is known of a peer, the mark of a revocation too.
func (d *DB) ForgetPeer(ctx context.Context, name string) error {
	_, err := d.exec(ctx, "forget-peer", name)
	return err
}

// NextSequence is a number that grows by one with every call for a name and never repeats; the first is 1.
func (d *DB) NextSequence(ctx context.Context, name string) (uint64, error) {
	var n int64
	err := d.stmts["next-sequence"].QueryRowContext(ctx, name).Scan(&n)
	return uint64(n), d.fail("next-sequence", err)
}

func sequenceOf(n uint64) (int64, error) {
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("sequence %d is beyond %d: %w", n, math.MaxInt64, ErrSequence)
	}
	return int64(n), nil
}

func scanPeer(s scanner) (Peer, error) {
	var p Peer
	err := s.Scan(&p.Name, jsonOf{&p.Object}, &p.State.Roots, &p.State.BundleSequence, timeOf{&p.State.BundleTime},
		&p.State.Suspended, timeOf{&p.Revoked}, jsonOf{&p.State.Catalogue}, &p.PushedSequence, &p.PushedDigest)
	return p, err
}
