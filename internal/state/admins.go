package state

import (
	"context"
	"time"
)

// Admin is one certificate of an administrator.
type Admin struct {
	Generation string // that the certificate carries
	Name       string
	Serial     string // hex
	Created    time.Time
	MadeBy     string
	NotAfter   time.Time
	Revoked    time.Time // zero: not
}

// AddAdmin writes a new one.
func (d *DB) AddAdmin(ctx context.Context, a Admin) error {
	_, err := d.exec(ctx, "add-admin", a.Generation, a.Name, a.Serial, stamp(a.Created), a.MadeBy, stamp(a.NotAfter))
	return err
}

// Admin reads one by the generation of its certificate; ErrNotFound when there is none.
func (d *DB) Admin(ctx context.Context, generation string) (Admin, error) {
	return one(ctx, d, "admin", scanAdmin, generation)
}

// Admins reads all, sorted by name and age.
func (d *DB) Admins(ctx context.Context) ([]Admin, error) { return list(ctx, d, "admins", scanAdmin) }

// RevokeAdmins ends certificates that have not ended by themselves: those of a name, or that of one generation.
func (d *DB) RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error {
	_, err := d.exec(ctx, "revoke-admins", stamp(now), name, generation)
	return err
}

func scanAdmin(s scanner) (a Admin, err error) {
	err = s.Scan(&a.Generation, &a.Name, &a.Serial, timeOf{&a.Created}, &a.MadeBy, timeOf{&a.NotAfter}, timeOf{&a.Revoked})
	return a, err
}
