package state

import (
	"context"
	"fmt"
	"time"
)

// Blob is one piece of CA material: a certificate and its private key, encrypted by the CA.
type Blob struct {
	Name    string
	Cert    []byte // DER
	Key     []byte // encrypted; empty where the operator keeps the key
	Created time.Time
}

// AddBlob writes a blob that must be new; ErrExists otherwise.
func (d *DB) AddBlob(ctx context.Context, b Blob) error {
	n, err := d.exec(ctx, "add-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key), stamp(b.Created))
	if err == nil && n == 0 {
		err = fmt.Errorf("add CA material %q: %w", b.Name, ErrExists)
	}
	return err
}

// PutBlob writes a blob, over an older one of its name.
func (d *DB) PutBlob(ctx context.Context, b Blob) error {
	_, err := d.exec(ctx, "put-blob", b.Name, orEmpty(b.Cert), orEmpty(b.Key), stamp(b.Created))
	return err
}

// Blob reads one blob; ErrNotFound when there is none.
func (d *DB) Blob(ctx context.Context, name string) (Blob, error) {
	return one(ctx, d, "blob", scanBlob, name)
}

// Blobs reads all, sorted by name.
func (d *DB) Blobs(ctx context.Context) ([]Blob, error) { return list(ctx, d, "blobs", scanBlob) }

// DeleteBlob removes one, if it is there.
func (d *DB) DeleteBlob(ctx context.Context, name string) error {
	_, err := d.exec(ctx, "delete-blob", name)
	return err
}

func scanBlob(s scanner) (Blob, error) {
	var b Blob
	err := s.Scan(&b.Name, &b.Cert, &b.Key, timeOf{&b.Created})
	return b, err
}

func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
