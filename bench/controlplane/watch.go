package main

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/bench/adsclient"
)

// watch waits for addresses to reach the proxies.
type watch struct {
	mu    sync.Mutex // guards what follows
	waits map[netip.Addr]*wait
}

// wait is for one address.
type wait struct {
	since     time.Time
	expected  []int // proxies that have not heard yet
	latencies []time.Duration
	done      chan struct{} // closed when all have
}

// expect begins to wait now, for the proxies that are to hear of addr.
func (w *watch) expect(addr netip.Addr, proxies []int) *wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits == nil {
		w.waits = map[netip.Addr]*wait{}
	}
	one := &wait{since: time.Now(), expected: slices.Clone(proxies), done: make(chan struct{})}
	if len(proxies) == 0 {
		close(one.done)
		return one
	}
	w.waits[addr] = one
	return one
}

// outstanding are the proxies that have not heard.
func (w *watch) outstanding(one *wait) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(one.expected)
}

// look sees whether a message brings what is waited for.
func (w *watch) look(proxy int, m adsclient.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.Type != adsclient.EDS || len(w.waits) == 0 {
		return
	}
	for _, r := range m.Resources {
		var load endpoint.ClusterLoadAssignment
		if r.Resource == nil || proto.Unmarshal(r.Resource.Value, &load) != nil {
			continue
		}
		for _, locality := range load.Endpoints {
			for _, e := range locality.LbEndpoints {
				addr, err := netip.ParseAddr(e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
				if err == nil {
					w.heard(addr, proxy, m.At)
				}
			}
		}
	}
}

// heard records that a proxy received an address. The caller holds the mutex.
func (w *watch) heard(addr netip.Addr, proxy int, at time.Time) {
	one := w.waits[addr]
	if one == nil {
		return
	}
	i := slices.Index(one.expected, proxy)
	if i < 0 {
		return
	}
	one.expected = slices.Delete(one.expected, i, i+1)
	one.latencies = append(one.latencies, at.Sub(one.since))
	if len(one.expected) == 0 {
		delete(w.waits, addr)
		close(one.done)
	}
}
