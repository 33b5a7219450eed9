package relational

import (
	"context"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// AddAdmin implements state.Store.
func (d *DB) AddAdmin(ctx context.Context, a state.Admin) error {
	_, err := d.exec(ctx, "add-admin", a.Generation, a.Name, a.Serial, timeValue(a.Created), a.MadeBy,
		timeValue(a.NotAfter))
	return err
}

// Admin implements state.Store.
func (d *DB) Admin(ctx context.Context, generation string) (state.Admin, error) {
	return one(ctx, d, "admin", scanAdmin, generation)
}

// Admins implements state.Store.
func (d *DB) Admins(ctx context.Context) ([]state.Admin, error) {
	return list(ctx, d, "admins", scanAdmin)
}

// RevokeAdmins implements state.Store.
func (d *DB) RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error {
	_, err := d.exec(ctx, "revoke-admins", timeValue(now), name, generation)
	return err
}

func scanAdmin(s scanner) (a state.Admin, err error) {
	err = s.Scan(&a.Generation, &a.Name, &a.Serial, timeOf{&a.Created}, &a.MadeBy, timeOf{&a.NotAfter},
		timeOf{&a.Revoked})
	return a, err
}
