package relational

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// AddInvite implements state.Store.
func (d *DB) AddInvite(ctx context.Context, i state.Invite) error {
	n, err := d.exec(ctx, "add-invite", i.ID, i.Hash[:], i.Peer, timeValue(i.Created), timeValue(i.Expires))
	if err == nil && n == 0 {
		err = fmt.Errorf("add invitation %q: %w", i.ID, state.ErrExists)
	}
	return err
}

// UseInvite implements state.Store.
func (d *DB) UseInvite(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (state.Invite, error) {
	var i state.Invite
	u := use{what: "invite", id: id, by: by, now: now, statement: "use-invite"}
	err := d.useOnce(ctx, u, hash, func() (s secret, err error) {
		i, err = one(ctx, d, "invite", scanInvite, id)
		return secret{i.Hash, i.UsedAt, i.Expires}, err
	})
	if err != nil {
		return state.Invite{}, err
	}
	i.UsedAt, i.UsedBy = now, by
	return i, nil
}

// OpenInvites implements state.Store.
func (d *DB) OpenInvites(ctx context.Context, now time.Time) ([]snapshot.Invite, error) {
	return list(ctx, d, "open-invites", func(s scanner) (snapshot.Invite, error) {
		var i snapshot.Invite
		err := s.Scan(&i.ID, &i.Peer, timeOf{&i.Expires})
		return i, err
	}, timeValue(now))
}

// CancelInvites implements state.Store.
func (d *DB) CancelInvites(ctx context.Context, peer string) error {
	_, err := d.exec(ctx, "cancel-invites", peer)
	return err
}

// PutBootstrap implements state.Store.
func (d *DB) PutBootstrap(ctx context.Context, b snapshot.Bootstrap, expires time.Time) error {
	_, err := d.exec(ctx, "put-bootstrap", b.ID, b.Address, timeValue(expires))
	return err
}

// Bootstraps implements state.Store.
func (d *DB) Bootstraps(ctx context.Context, now time.Time) ([]snapshot.Bootstrap, error) {
	return list(ctx, d, "bootstraps", func(s scanner) (snapshot.Bootstrap, error) {
		var b snapshot.Bootstrap
		err := s.Scan(&b.ID, &b.Address)
		return b, err
	}, timeValue(now))
}

// DeleteBootstrap implements state.Store.
func (d *DB) DeleteBootstrap(ctx context.Context, id string) error {
	_, err := d.exec(ctx, "delete-bootstrap", id)
	return err
}

func scanInvite(s scanner) (i state.Invite, err error) {
	var hash []byte
	err = s.Scan(&i.ID, &hash, &i.Peer, timeOf{&i.Created}, timeOf{&i.Expires}, timeOf{&i.UsedAt}, &i.UsedBy)
	copy(i.Hash[:], hash)
	return i, err
}
