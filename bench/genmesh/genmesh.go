// Package genmesh invents a mesh of a given size: its configuration folder and the workloads that call in it.
// The same Plan always gives the same mesh.
package genmesh

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/snapshot"
)

// Names that every invented mesh uses.
const (
	TrustDomain      = "bench.example"
	CallersNamespace = "callers"
)

// Plan is the size of a mesh.
type Plan struct {
	Services  int // each with its own file
	Endpoints int // WorkloadEntries per service
	Proxies   int // each with one workload
	Callable  int // services that each workload may call
	Seed      uint64
}

// servicesPerNamespace keeps namespaces of a size that a team would have.
const servicesPerNamespace = 50

// Mesh is an invented mesh. The harness may change Services and render their files again.
type Mesh struct {
	Plan     Plan
	Services []Service
}

// Service is one service, its endpoints and who may call it.
type Service struct {
	Index     int
	Endpoints []netip.Addr
	Callers   []int // proxies, ascending
}

// New invents a mesh.
func New(p Plan) (*Mesh, error) {
	switch {
	case p.Services < 1 || p.Endpoints < 1 || p.Proxies < 1 || p.Callable < 1:
		return nil, fmt.Errorf("a mesh needs at least one service, endpoint, proxy and callable service")
	case p.Callable > p.Services:
		return nil, fmt.Errorf("a workload cannot call %d of %d services", p.Callable, p.Services)
	case p.Services*p.Endpoints > 1<<22 || p.Proxies > 1<<16:
		return nil, fmt.Errorf("%d endpoints and %d proxies do not fit the address plan",
			p.Services*p.Endpoints, p.Proxies)
	}
	m := &Mesh{Plan: p, Services: make([]Service, p.Services)}
	for i := range m.Services {
		m.Services[i] = Service{Index: i}
		for e := range p.Endpoints {
			m.Services[i].Endpoints = append(m.Services[i].Endpoints, address(10, 64, i*p.Endpoints+e))
		}
	}
	rnd := rand.New(rand.NewPCG(p.Seed, 1))
	for caller := range p.Proxies {
		for _, s := range pick(rnd, p.Services, p.Callable) {
			m.Services[s].Callers = append(m.Services[s].Callers, caller)
		}
	}
	return m, nil
}

// pick chooses k different numbers below n.
func pick(rnd *rand.Rand, n, k int) []int {
	var chosen []int
	for len(chosen) < k {
		if c := rnd.IntN(n); !slices.Contains(chosen, c) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// Called lists the services that at least one proxy may call.
func (m *Mesh) Called() []Service {
	return slices.DeleteFunc(slices.Clone(m.Services), func(s Service) bool { return len(s.Callers) == 0 })
}

// Workload is the one workload of a proxy. Its address is data: no traffic is ever sent.
func Workload(proxy int) snapshot.Workload {
	return snapshot.Workload{
		Name:           CallerAccount(proxy),
		Namespace:      CallersNamespace,
		ServiceAccount: CallerAccount(proxy),
		Labels:         map[string]string{"app": CallerAccount(proxy)},
		Addresses:      []netip.Addr{address(10, 32, proxy)},
		Netns:          fmt.Sprintf("/run/netns/bench-%04d", proxy),
		Ready:          true,
	}
}

// CallerAccount is the service account of a proxy's workload, and its name.
func CallerAccount(proxy int) string { return fmt.Sprintf("caller-%04d", proxy) }

// Fresh is an address that no service had before: the nth one of a run.
func Fresh(n int) netip.Addr { return address(10, 128, n) }

// address is the nth address from a.b.0.1 on.
func address(a, b byte, n int) netip.Addr {
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], uint32(a)<<24|uint32(b)<<16)
	binary.BigEndian.PutUint32(ip[:], binary.BigEndian.Uint32(ip[:])+uint32(n)+1)
	return netip.AddrFrom4(ip)
}
