package state

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
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

// AddCert writes one issued certificate and returns when it is durable. Calls made at the same time share one write to
// the disk: the first to come writes for all who wait.
func (d *DB) AddCert(ctx context.Context, c Cert) error {
	w := waitingCert{c, make(chan error, 1)}
	d.certs.add(w)
	select {
	case err := <-w.done:
		return err
	case d.certs.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err() // written perhaps, which does no harm
	}
	d.writeCerts(context.WithoutCancel(ctx), d.certs.take()) // for the others too
	<-d.certs.turn
	return <-w.done
}

// AddCerts writes many at once: all or none.
func (d *DB) AddCerts(ctx context.Context, certs []Cert) error {
	return d.inTx(ctx, "add certificates", func(t tx) error {
		s := t.tx.StmtContext(ctx, d.stmts["add-cert"])
		for _, c := range certs {
			serial, err1 := hex.DecodeString(c.Serial)
			finger, err2 := hex.DecodeString(c.Fingerprint)
			root, err3 := hex.DecodeString(c.Root)
			if err := errors.Join(err1, err2, err3); err != nil {
				return fmt.Errorf("add certificate of %s: serial number and fingerprints must be hex: %w", c.SPIFFEID, err)
			}
			if _, err := s.ExecContext(ctx, serial, c.SPIFFEID, c.Node, finger, stamp(c.NotBefore), stamp(c.NotAfter), orEmpty(root)); err != nil {
				return d.fail("add-cert", err)
			}
		}
		return nil
	})
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

// Prune removes what ended before a moment: certificates, tokens, invitations, acceptances and refusals.
func (d *DB) Prune(ctx context.Context, before time.Time) error {
	for _, name := range []string{"prune-certs", "prune-tokens", "prune-invites", "prune-bootstraps", "prune-refusals"} {
		if _, err := d.exec(ctx, name, stamp(before)); err != nil {
			return err
		}
	}
	return nil
}

func scanCert(s scanner) (Cert, error) {
	var c Cert
	var serial, finger, root []byte
	err := s.Scan(&serial, &c.SPIFFEID, &c.Node, &finger, timeOf{&c.NotBefore}, timeOf{&c.NotAfter}, &root)
	c.Serial, c.Fingerprint, c.Root = hex.EncodeToString(serial), hex.EncodeToString(finger), hex.EncodeToString(root)
	return c, err
}

// certQueue holds certificates until somebody writes them.
type certQueue struct {
	turn chan struct{} // holds one: whoever put it there writes
	mu   sync.Mutex    // guards wait
	wait []waitingCert
}

type waitingCert struct {
	Cert
	done chan error // takes one answer
}

func (q *certQueue) add(w waitingCert) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wait = append(q.wait, w)
}

func (q *certQueue) take() []waitingCert {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.wait
	q.wait = nil
	return all
}

func (d *DB) writeCerts(ctx context.Context, waiting []waitingCert) {
	if len(waiting) == 0 {
		return
	}
	certs := make([]Cert, len(waiting))
	for i, w := range waiting {
		certs[i] = w.Cert
	}
	err := d.AddCerts(ctx, certs)
	for _, w := range waiting {
		w.done <- err
	}
}
