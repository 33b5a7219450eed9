package relational

import (
	"context"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// AddAdmin writes a new one.
func (d *DB) AddAdmin(ctx context.Context, a state.Admin) error {
	_, err := d.exec(ctx, "add-admin", a.Generation, a.Name, a.Serial, stamp(a.Created), a.MadeBy, stamp(a.NotAfter))
	return err
}

// Admin reads one by the generation of its certificate; ErrNotFound when there is none.
func (d *DB) Admin(ctx context.Context, generation string) (state.Admin, error) {
	return one(ctx, d, "admin", scanAdmin, generation)
}

// Admins reads all, sorted by name and age.
func (d *DB) Admins(ctx context.Context) ([]state.Admin, error) {
	return list(ctx, d, "admins", scanAdmin)
}

// RevokeAdmins ends certificates that have not ended by themselves: those of a name, or that of one generation.
func (d *DB) RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error {
	_, err := d.exec(ctx, "revoke-admins", stamp(now), name, generation)
	return err
}

func scanAdmin(s scanner) (a state.Admin, err error) {
	err = s.Scan(&a.Generation, &a.Name, &a.Serial, timeOf{&a.Created}, &a.MadeBy, timeOf{&a.NotAfter},
		timeOf{&a.Revoked})
	return a, err
}
