package meshd

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"isthmus.dev/isthmus/internal/agentapi"
)

// Bounds on those who have not proved who they are.
const (
	strangerTime = 5 * time.Second
	maxStrangers = 256 // at once, from one address
	// One address may be refused refusalBurst tokens and then refusalRate a second: each costs a write to the disk.
	refusalRate  = 2
	refusalBurst = 200
	maxRefusers  = 10_000
)

// door stands before a gRPC server's methods. It turns away who may not call before a byte of the message is read, and
// keeps those short who may come without a certificate: by what they send slowly, and by how many they are.
type door struct {
	mu        sync.Mutex // guards strangers
	strangers map[netip.Addr]int
}

func newDoor() *door { return &door{strangers: map[netip.Addr]int{}} }

// enter is a tap.ServerInHandle: it must not block. The methods check again.
func (d *door) enter(ctx context.Context, info *tap.Info) (context.Context, error) {
	if err := authorize(ctx, info.FullMethodName); err != nil {
		return nil, err
	}
	if info.FullMethodName != "/"+agentapi.Service+"/Attest" {
		return ctx, nil
	}
	from := addressOf(ctx)
	if !d.admit(from) {
		return nil, status.Error(codes.ResourceExhausted, "too many nodes join from this address at once: try again")
	}
	brief, cancel := context.WithTimeout(ctx, strangerTime)
	context.AfterFunc(brief, func() {
		cancel()
		d.leave(from)
	})
	return brief, nil
}

func (d *door) admit(from netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.strangers[from] >= maxStrangers {
		return false
	}
	d.strangers[from]++
	return true
}

func (d *door) leave(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.strangers[from]--; d.strangers[from] <= 0 {
		delete(d.strangers, from)
	}
}

// refusals hold back addresses from which token after token is refused.
type refusals struct {
	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

// enough says that an address has been refused too often lately.
func (r *refusals) enough(a netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.from[a]
	return l != nil && l.Tokens() < 1
}

func (r *refusals) count(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.from[a]
	if l == nil {
		if len(r.from) >= maxRefusers {
			clear(r.from) // so many addresses are an attack that no address stands for
		}
		l = rate.NewLimiter(refusalRate, refusalBurst)
		r.from[a] = l
	}
	l.Allow()
}

// addressOf is where a call comes from: for IPv6 the network, of which one host has all addresses.
func addressOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if net, err := a.Prefix(64); err == nil {
			return net.Addr()
		}
	}
	return a
}
