package relational

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// AddCert implements state.Store.
func (d *DB) AddCert(ctx context.Context, c state.Cert, generation string) error {
	serial, err1 := hex.DecodeString(c.Serial)
	finger, err2 := hex.DecodeString(c.Fingerprint)
	root, err3 := hex.DecodeString(c.Root)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("add certificate of %s: serial number and fingerprints must be hex: %w", c.SPIFFEID, err)
	}
	n, err := d.exec(ctx, "add-cert", serial, c.SPIFFEID, c.Node, finger, timeValue(c.NotBefore), timeValue(c.NotAfter),
		orEmpty(root), generation)
	if err != nil || n > 0 {
		return err
	}
	if generation != "" {
		node, err := d.NodeOf(ctx, generation)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if err != nil || node.Name != c.Node || !node.Revoked.IsZero() {
			return fmt.Errorf("add certificate of %s: node %s may have none any more: %w", c.SPIFFEID, c.Node,
				state.ErrRevoked)
		}
	}
	return fmt.Errorf("add certificate of %s: another root signs: %w", c.SPIFFEID, state.ErrSuperseded)
}

// Certs implements state.Store.
func (d *DB) Certs(ctx context.Context, f state.CertFilter) ([]state.Cert, error) {
	after := int64(-1 << 63)
	if !f.ValidAt.IsZero() {
		after = f.ValidAt.UnixMicro()
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 1000
	}
	return list(ctx, d, "certs", scanCert, after, f.Node, f.SPIFFEID, limit)
}

// PruneCerts implements state.Store.
func (d *DB) PruneCerts(ctx context.Context, before time.Time) error {
	_, err := d.exec(ctx, "prune-certs", timeValue(before))
	return err
}

// Prune implements state.Store.
func (d *DB) Prune(ctx context.Context, before time.Time) error {
	for _, name := range []string{"prune-admins", "prune-tokens", "prune-invites", "prune-bootstraps", "prune-leases"} {
		if _, err := d.exec(ctx, name, timeValue(before)); err != nil {
			return err
		}
	}
	if _, err := d.exec(ctx, "prune-refusals", timeValue(before.Add(-refusalRetention))); err != nil {
		return err
	}
	_, err := d.exec(ctx, "prune-events")
	return err
}

func scanCert(s scanner) (state.Cert, error) {
	var c state.Cert
	var serial, finger, root []byte
	err := s.Scan(&serial, &c.SPIFFEID, &c.Node, &finger, timeOf{&c.NotBefore}, timeOf{&c.NotAfter}, &root)
	c.Serial, c.Fingerprint, c.Root = hex.EncodeToString(serial), hex.EncodeToString(finger), hex.EncodeToString(root)
	return c, err
}
