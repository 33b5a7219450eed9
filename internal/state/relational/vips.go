package relational

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

// maxVIPsTogether limits the rows of one transaction, so that others do not wait while thousands are written.
const maxVIPsTogether = 1000

// SaveVIPs implements state.Store.
func (d *DB) SaveVIPs(ctx context.Context, c vip.Change) error {
	for drop := range slices.Chunk(c.Drop, maxVIPsTogether) {
		err := d.inTx(ctx, "release addresses", func(ctx context.Context, t *tx) error {
			for _, host := range drop {
				if _, err := t.exec(ctx, "delete-vip", host); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for put := range slices.Chunk(c.Put, maxVIPsTogether) {
		err := d.inTx(ctx, "keep addresses", func(ctx context.Context, t *tx) error {
			for _, r := range put {
				n, err := t.exec(ctx, "put-vip", r.Name, r.Namespace, r.Addr.String(), timeValue(r.Gone))
				if err == nil && n == 0 {
					err = fmt.Errorf("host %s has another address: %w", r.Name, state.ErrExists)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// VIPs implements state.Store.
func (d *DB) VIPs(ctx context.Context) ([]vip.Row, error) {
	return list(ctx, d, "vips", func(s scanner) (vip.Row, error) {
		var r vip.Row
		var text string
		err := s.Scan(&r.Name, &r.Namespace, &text, timeOf{&r.Gone})
		if err != nil {
			return r, err
		}
		r.Addr, err = netip.ParseAddr(text)
		return r, err
	})
}
