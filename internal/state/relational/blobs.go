package relational

import (
	"context"
	"fmt"

	"isthmus.dev/isthmus/internal/state"
)

// AddBlob writes a blob that must be new; ErrExists otherwise.
func (d *DB) AddBlob(ctx context.Context, b state.Blob) error {
	n, err := d.exec(ctx, "add-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key), stamp(b.Created))
	if err == nil && n == 0 {
		err = fmt.Errorf("add CA material %q: %w", b.Name, state.ErrExists)
	}
	return err
}

// PutBlob writes a blob, over an older one of its name.
func (d *DB) PutBlob(ctx context.Context, b state.Blob) error {
	_, err := d.exec(ctx, "put-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key), stamp(b.Created))
	return err
}

// Blob reads one blob; ErrNotFound when there is none.
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
