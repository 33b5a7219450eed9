package meshlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// Place is a namespace with an address.
type Place struct {
	Namespace string
	Address   netip.Addr
}

// Netns is the namespace's path.
func (p Place) Netns() string { return lab.NetnsPath(p.Namespace) }

// Dial connects as a process in the namespace would, to a literal address.
func (p Place) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = lab.Inside(p.Namespace, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address) // a literal address: Go dials it on this thread
		return err
	})
	return conn, err
}

// Listen listens as a process in the namespace would.
func (p Place) Listen(address string) (l net.Listener, err error) {
	err = lab.Inside(p.Namespace, func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// Lookup asks the DNS that a captured workload is answered by.
func (p Place) Lookup(ctx context.Context, name string) (netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = lab.Inside(p.Namespace, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, "udp", "127.0.0.1:53")
			return err
		})
		return conn, err
	}}
	addrs, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look %s up in %s: %w", name, p.Namespace, err)
	}
	return addrs[0], nil
}

// plan assigns addresses and namespaces.
type plan struct {
	network lab.Network
	places  map[string]Place // of workloads and strangers, and "<mesh>/host" and "<mesh>/gateway"
	outer   map[string]netip.Addr
}

func newPlan(cfg Config) plan {
	p := plan{places: map[string]Place{}, outer: map[string]netip.Addr{}}
	link := cfg.Prefix + "-link"
	p.network.Bridges = []lab.Bridge{{Namespace: link}}
	for i, m := range cfg.Meshes {
		at := func(host int) netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(190 + i), byte(host >> 8), byte(host)})
		}
		host := Place{Namespace: fmt.Sprintf("%s-m%d", cfg.Prefix, i), Address: at(1)}
		p.places[m.Name+"/host"] = host
		p.network.Bridges = append(p.network.Bridges,
			lab.Bridge{Namespace: host.Namespace, Address: netip.PrefixFrom(host.Address, 16)})
		number := 10
		attach := func(name string) {
			number++
			here := Place{Namespace: fmt.Sprintf("%s-m%d-%d", cfg.Prefix, i, number), Address: at(number)}
			p.places[name] = here
			p.network.Attachments = append(p.network.Attachments, lab.Attachment{
				Namespace: here.Namespace, Device: "eth0", Address: netip.PrefixFrom(here.Address, 16),
				Bridge: host.Namespace, Port: fmt.Sprintf("v-%d", number),
				// lets a call to a virtual address leave the program; capture takes it before the wire
				Via: host.Address,
			})
		}
		for _, n := range m.Nodes {
			for _, w := range n.Workloads {
				attach(w.Name)
			}
		}
		for _, w := range m.Strangers {
			attach(w.Name)
		}
		if m.Gateway {
			attach(m.Name + "/gateway")
			gw := p.places[m.Name+"/gateway"]
			p.outer[m.Name] = netip.AddrFrom4([4]byte{198, 51, 100, byte(11 + i)})
			p.network.Attachments = append(p.network.Attachments, lab.Attachment{
				Namespace: gw.Namespace, Device: "eth1", Address: netip.PrefixFrom(p.outer[m.Name], 24), Bridge: link,
				Port: fmt.Sprintf("v-%d", i),
			})
		}
	}
	return p
}
