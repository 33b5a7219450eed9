package relational

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"isthmus.dev/isthmus/internal/state"
)

// PutBlob implements state.Store.
func (d *DB) PutBlob(ctx context.Context, b state.Blob, was []byte) error {
	return d.inTx(ctx, "put-blob", func(ctx context.Context, t *tx) error {
		return t.putBlob(ctx, b, was)
	})
}

func (t *tx) putBlob(ctx context.Context, b state.Blob, was []byte) error {
	var there []byte
	err := t.scan(ctx, "blob-as-it-is", []any{&there}, b.Name)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	switch {
	case err != nil:
		return err
	case !bytes.Equal(there, was):
		return fmt.Errorf("put CA material %q: %w", b.Name, state.ErrSuperseded)
	}
	_, err = t.exec(ctx, "put-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key), timeValue(b.Created))
	return err
}

// Blob implements state.Store.
func (d *DB) Blob(ctx context.Context, name string) (state.Blob, error) {
	return one(ctx, d, "blob", scanBlob, name)
}

func scanBlob(s scanner) (state.Blob, error) {
	var b state.Blob
	err := s.Scan(&b.Name, &b.Cert, &b.Key, timeOf{&b.Created})
	if len(b.Key) == 0 {
		b.Key = nil
	}
	return b, err
}

func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
