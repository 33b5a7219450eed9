package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bridgeDevice is the name of every bridge.
const bridgeDevice = "br0"

// Network describes bridges and the namespaces attached to them. Nothing outside these namespaces is changed.
type Network struct {
	Bridges     []Bridge
	Attachments []Attachment
}

// Bridge is a namespace that contains a bridge.
type Bridge struct {
	Namespace string
	Address   netip.Prefix // of the bridge itself; zero for a plain switch
	Address6  netip.Prefix // IPv6; zero for none
}

// Attachment connects a namespace to a bridge. A namespace may have several.
type Attachment struct {
	Namespace string
	Device    string // name inside the namespace
	Address   netip.Prefix
	Address6  netip.Prefix // IPv6; of the two addresses, zero ones are not set
	Bridge    string       // the bridge's namespace
	Port      string       // name of the other end, at the bridge
	Via       netip.Addr   // default route, if valid
	Via6      netip.Addr   // IPv6
}

// Namespaces returns the distinct names in the order of their creation.
func (n Network) Namespaces() []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, b := range n.Bridges {
		add(b.Namespace)
	}
	for _, a := range n.Attachments {
		add(a.Namespace)
	}
	return names
}

// build creates the network. On failure the caller deletes the namespaces, which removes everything.
func (n Network) build() error {
	for _, name := range n.Namespaces() {
		if err := createNetns(name); err != nil {
			return err
		}
		if err := withHandle(name, func(h *netlink.Handle) error { return up(h, "lo") }); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, b := range n.Bridges {
		if err := withHandle(b.Namespace, b.build); err != nil {
			return fmt.Errorf("%s: %w", b.Namespace, err)
		}
	}
	for _, a := range n.Attachments {
		if err := a.build(); err != nil {
			return fmt.Errorf("%s: attach to %s: %w", a.Namespace, a.Bridge, err)
		}
	}
	return nil
}

func (b Bridge) build(h *netlink.Handle) error {
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: named(bridgeDevice)}); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	return addresses(h, b.Namespace, bridgeDevice, b.Address, b.Address6)
}

func (a Attachment) build() error {
	inner, err := netns.GetFromName(a.Namespace)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer inner.Close()
	err = withHandle(a.Bridge, func(h *netlink.Handle) error {
		pair := &netlink.Veth{LinkAttrs: named(a.Port), PeerName: a.Device, PeerNamespace: netlink.NsFd(inner)}
		if err := h.LinkAdd(pair); err != nil {
			return fmt.Errorf("make the link %s: %w", a.Port, err)
		}
		bridge, err := h.LinkByName(bridgeDevice)
		if err != nil {
			return fmt.Errorf("find the bridge: %w", err)
		}
		port, err := h.LinkByName(a.Port)
		if err != nil {
			return fmt.Errorf("find the link %s: %w", a.Port, err)
		}
		if err := h.LinkSetMasterByIndex(port, bridge.Attrs().Index); err != nil {
			return fmt.Errorf("plug %s into the bridge: %w", a.Port, err)
		}
		return up(h, a.Port)
	})
	if err != nil {
		return err
	}
	return withHandle(a.Namespace, func(h *netlink.Handle) error {
		if err := addresses(h, a.Namespace, a.Device, a.Address, a.Address6); err != nil {
			return err
		}
		for _, via := range []netip.Addr{a.Via, a.Via6} {
			if !via.IsValid() {
				continue
			}
			if err := h.RouteAdd(&netlink.Route{Gw: via.AsSlice()}); err != nil {
				return fmt.Errorf("add the default route: %w", err)
			}
		}
		return nil
	})
}

// Cut takes a device down or brings it up again. The other side is not notified.
func Cut(namespace, device string, cut bool) error {
	return withHandle(namespace, func(h *netlink.Handle) error {
		link, err := h.LinkByName(device)
		switch {
		case err != nil:
			return fmt.Errorf("find %s in %s: %w", device, namespace, err)
		case cut:
			return h.LinkSetDown(link)
		}
		return h.LinkSetUp(link)
	})
}

func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

func up(h *netlink.Handle, device string) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// addresses assigns the valid ones of two addresses to a device and brings it up.
func addresses(h *netlink.Handle, namespace, device string, four, six netip.Prefix) error {
	if four.IsValid() {
		if err := address(h, device, four, 0); err != nil {
			return err
		}
	}
	if six.IsValid() {
		if err := enableIPv6(namespace, device); err != nil {
			return err
		}
		if err := address(h, device, six, unix.IFA_F_NODAD); err != nil {
			return err
		}
	}
	return up(h, device)
}

func address(h *netlink.Handle, device string, p netip.Prefix, flags int) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: flags}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", device, p, err)
	}
	return nil
}

// enableIPv6 enables IPv6 on one device, without duplicate address detection.
func enableIPv6(namespace, device string) error {
	return Inside(namespace, func() error {
		for name, value := range map[string]string{"disable_ipv6": "0", "accept_dad": "0", "accept_ra": "0"} {
			path := "/proc/sys/net/ipv6/conf/" + device + "/" + name
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("set %s in %s: %w", path, namespace, err)
			}
		}
		return nil
	})
}

// withHandle talks netlink to a named namespace without entering it.
func withHandle(name string, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return errors.Join(fmt.Errorf("talk to network namespace %s", name), err)
	}
	defer h.Close()
	return f(h)
}
