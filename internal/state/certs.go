package state

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Cert is one issued certificate.
type Cert struct {
	Serial      string // hex
	SPIFFEID    string
	Node        string // that asked for it, empty for the control plane's own
	Fingerprint string // SHA-256 of the DER, hex
	NotBefore   time.Time
	NotAfter    time.Time
	Root        string // SHA-256 of the root that it leads to, hex; empty when that is not known
}

// CertFilter selects issued certificates; empty fields select all.
type CertFilter struct {
	Node     string
	SPIFFEID string
	ValidAt  time.Time // still valid then
	Limit    int       // 0: 1000
}

// AddCert writes one issued certificate and returns when it is durable.
func (d *DB) AddCert(ctx context.Context, c Cert) error {
	row, err := certRow(c)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, "add-cert", row...)
	return err
}

// AddCerts writes many at once: all or none.
func (d *DB) AddCerts(ctx context.Context, certs []Cert) error {
	return d.inTx(ctx, "add certificates", func(ctx context.Context, t tx) error {
		for _, c := range certs {
			row, err := certRow(c)
			if err != nil {
				return err
			}
			if _, err := t.exec(ctx, "add-cert", row...); err != nil {
				return err
			}
		}
		return nil
	})
}

func certRow(c Cert) ([]any, error) {
	serial, err1 := hex.DecodeString(c.Serial)
	finger, err2 := hex.DecodeString(c.Fingerprint)
	root, err3 := hex.DecodeString(c.Root)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("add certificate of %s: serial number and fingerprints must be hex: %w", c.SPIFFEID, err)
	}
	return []any{serial, c.SPIFFEID, c.Node, finger, stamp(c.NotBefore), stamp(c.NotAfter), orEmpty(root)}, nil
}

// Cert reads one by its fingerprint; ErrNotFound when it was not issued here, or pruned.
func (d *DB) Cert(ctx context.Context, fingerprint string) (Cert, error) {
	finger, err := hex.DecodeString(fingerprint)
	if err != nil {
		return Cert{}, fmt.Errorf("fingerprint %q is not hex: %w", fingerprint, err)
	}
	return one(ctx, d, "cert", scanCert, finger)
}

// Certs reads those that the filter selects, longest valid first.
func (d *DB) Certs(ctx context.Context, f CertFilter) ([]Cert, error) {
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

// PruneCerts removes the records of certificates that ended before a moment.
func (d *DB) PruneCerts(ctx context.Context, before time.Time) error {
	_, err := d.exec(ctx, "prune-certs", stamp(before))
	return err
}

// Prune removes what ended before a moment: administrators' certificates, tokens, invitations and acceptances. Of
// events and refusals it removes those that are past a retention of their own.
func (d *DB) Prune(ctx context.Context, before time.Time) error {
	for _, name := range []string{"prune-admins", "prune-tokens", "prune-invites", "prune-bootstraps"} {
		if _, err := d.exec(ctx, name, stamp(before)); err != nil {
			return err
		}
	}
	if _, err := d.exec(ctx, "prune-refusals", stamp(before.Add(-refusalRetention))); err != nil {
		return err
	}
	_, err := d.exec(ctx, "prune-events")
	return err
}

func scanCert(s scanner) (Cert, error) {
	var c Cert
	var serial, finger, root []byte
	err := s.Scan(&serial, &c.SPIFFEID, &c.Node, &finger, timeOf{&c.NotBefore}, timeOf{&c.NotAfter}, &root)
	c.Serial, c.Fingerprint, c.Root = hex.EncodeToString(serial), hex.EncodeToString(finger), hex.EncodeToString(root)
	return c, err
}
