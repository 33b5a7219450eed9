package state

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

// reservedVIPs at the beginning of the prefix are never given to a host: the mesh has uses of its own for them.
const reservedVIPs = 256

// AllocateVIPs gives every host that has none an address of the prefix, and returns the addresses of the hosts asked for.
// A host keeps its address until it is released; no two hosts of the file share one.
// Where a host lands depends on its name, so that a mesh begun anew gives out mostly the same addresses.
func (d *DB) AllocateVIPs(ctx context.Context, prefix netip.Prefix, hosts []string, now time.Time) (map[string]netip.Addr, error) {
	family, size, err := vipRange(prefix)
	if err != nil {
		return nil, err
	}
	got := map[string]netip.Addr{}
	err = d.inTx(ctx, "allocate addresses", func(ctx context.Context, t tx) error {
		for _, host := range slices.Sorted(slices.Values(hosts)) {
			has, err := t.vip(ctx, "vip-of", host, family)
			if err == nil && prefix.Contains(has.addr) {
				got[host] = has.addr
				continue
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			a, err := t.freeVIP(ctx, prefix, size, host)
			if err != nil {
				return err
			}
			if _, err := t.exec(ctx, "put-vip", host, family, a.String(), stamp(now)); err != nil {
				return err
			}
			got[host] = a
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// VIPs reads all addresses of the prefix by host.
func (d *DB) VIPs(ctx context.Context, prefix netip.Prefix) (map[string]netip.Addr, error) {
	family, _, err := vipRange(prefix)
	if err != nil {
		return nil, err
	}
	rows, err := list(ctx, d, "vips", scanVIP, family)
	if err != nil {
		return nil, err
	}
	got := map[string]netip.Addr{}
	for _, v := range rows {
		if prefix.Contains(v.addr) {
			got[v.host] = v.addr
		}
	}
	return got, nil
}

// ReleaseVIPs gives the hosts' addresses back.
func (d *DB) ReleaseVIPs(ctx context.Context, hosts []string) error {
	return d.inTx(ctx, "release addresses", func(ctx context.Context, t tx) error {
		for _, h := range hosts {
			if _, err := t.exec(ctx, "delete-vip", h); err != nil {
				return err
			}
		}
		return nil
	})
}

type vip struct {
	host string
	addr netip.Addr
}

func scanVIP(s scanner) (vip, error) {
	var v vip
	var text string
	if err := s.Scan(&v.host, &text); err != nil {
		return v, err
	}
	var err error
	v.addr, err = netip.ParseAddr(text)
	return v, err
}

// vip reads one inside the transaction; ErrNotFound when there is none.
func (t tx) vip(ctx context.Context, name string, args ...any) (vip, error) {
	v, err := scanVIP(t.tx.StmtContext(ctx, t.d.stmts[name]).QueryRowContext(ctx, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, ErrNotFound
	}
	return v, t.d.fail(name, err)
}

// vipRange is the family of a prefix and how many addresses of it may be given out, at most 2^32.
func vipRange(prefix netip.Prefix) (family int, size uint64, err error) {
	bits := prefix.Addr().BitLen() - prefix.Bits()
	if !prefix.IsValid() || bits < 10 {
		return 0, 0, fmt.Errorf("virtual addresses need a prefix of at least 1024 addresses, %s has fewer", prefix)
	}
	family = 6
	if prefix.Addr().Is4() {
		family = 4
	}
	return family, 1<<min(bits, 32) - reservedVIPs - 1, nil // not the last: IPv4 may broadcast there
}

// freeVIP walks from the place of the host's name to the next free address.
func (t tx) freeVIP(ctx context.Context, prefix netip.Prefix, size uint64, host string) (netip.Addr, error) {
	h := fnv.New64a()
	h.Write([]byte(host))
	start := h.Sum64() % size
	for i := range size {
		a := nth(prefix, reservedVIPs+(start+i)%size)
		_, err := t.vip(ctx, "vip-at", a.String())
		if errors.Is(err, ErrNotFound) {
			return a, nil
		}
		if err != nil {
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, fmt.Errorf("no virtual address of %s is left for %s: widen the range or remove services", prefix, host)
}

// nth is the n-th address of a prefix.
func nth(prefix netip.Prefix, n uint64) netip.Addr {
	b := prefix.Masked().Addr().As16()
	low := binary.BigEndian.Uint64(b[8:]) + n
	binary.BigEndian.PutUint64(b[8:], low)
	a := netip.AddrFrom16(b)
	if prefix.Addr().Is4() {
		return a.Unmap()
	}
	return a
}
