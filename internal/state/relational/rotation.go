package relational

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// Rotation implements state.Store.
func (d *DB) Rotation(ctx context.Context) (state.Rotation, error) {
	return one(ctx, d, "rotation", scanRotation)
}

func scanRotation(s scanner) (state.Rotation, error) {
	var r state.Rotation
	var oldRoot, newRoot, signing []byte
	err := s.Scan(&r.Step, &oldRoot, &newRoot, &signing, timeOf{&r.Began}, timeOf{&r.Since}, jsonOf{&r.Passed})
	r.OldRoot, r.NewRoot, r.Signing = hex.EncodeToString(oldRoot), hex.EncodeToString(newRoot),
		hex.EncodeToString(signing)
	return r, err
}

// PutRotation implements state.Store.
func (d *DB) PutRotation(ctx context.Context, from string, r state.Rotation, put []state.Blob, remove []string) error {
	oldRoot, err1 := hex.DecodeString(r.OldRoot)
	newRoot, err2 := hex.DecodeString(r.NewRoot)
	signing, err3 := hex.DecodeString(r.Signing)
	passed, err4 := encode(append([]string{}, r.Passed...))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fmt.Errorf("keep rotation: %w", err)
	}
	return d.inTx(ctx, "keep rotation", func(ctx context.Context, t *tx) error {
		var step string
		if err := t.scan(ctx, "rotation-step", []any{&step}); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if step != from {
			return fmt.Errorf("keep rotation: it is at %q, not at %q: %w", step, from, state.ErrSuperseded)
		}
		for _, b := range put {
			if _, err := t.exec(ctx, "put-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key),
				timeValue(b.Created)); err != nil {
				return err
			}
		}
		for _, name := range remove {
			if _, err := t.exec(ctx, "delete-blob", name); err != nil {
				return err
			}
		}
		_, err := t.exec(ctx, "put-rotation", r.Step, orEmpty(oldRoot), orEmpty(newRoot), orEmpty(signing),
			timeValue(r.Began),
			timeValue(r.Since), passed)
		return err
	})
}

// CertsUnder implements state.Store.
func (d *DB) CertsUnder(ctx context.Context, root string, now time.Time) ([]state.CertUse, error) {
	finger, err := hex.DecodeString(root)
	if err != nil {
		return nil, fmt.Errorf("root %q is not hex: %w", root, err)
	}
	return list(ctx, d, "certs-under", func(s scanner) (state.CertUse, error) {
		var u state.CertUse
		err := s.Scan(&u.Node, &u.SPIFFEID, timeOf{&u.NotAfter})
		return u, err
	}, timeValue(now), finger)
}
