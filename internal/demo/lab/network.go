package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bridgeDevice is the name of the bridge in a namespace that has one.
const bridgeDevice = "br0"

// Network is a plan: bridges, and namespaces attached to them. Nothing outside of the named namespaces is touched.
type Network struct {
	Bridges     []Bridge
	Attachments []Attachment
}

// Bridge is a namespace with a bridge in it.
type Bridge struct {
	Namespace string
	Address   netip.Prefix // of the bridge itself; zero for a mere switch
}

// Attachment is one leg of a namespace on a bridge. A namespace may have several.
type Attachment struct {
	Namespace string
	Device    string // the leg's name inside the namespace
	Address   netip.Prefix
	Bridge    string     // namespace of the bridge
	Port      string     // the leg's other end, at the bridge
	Via       netip.Addr // default route, if valid
}

// Namespaces are the names of the plan, each once, in the order in which they are made.
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

// build makes everything of the plan. On failure the caller deletes the namespaces, and all goes with them.
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
	if b.Address.IsValid() {
		if err := address(h, bridgeDevice, b.Address); err != nil {
			return err
		}
	}
	return up(h, bridgeDevice)
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
		if err := address(h, a.Device, a.Address); err != nil {
			return err
		}
		if err := up(h, a.Device); err != nil {
			return err
		}
		if !a.Via.IsValid() {
			return nil
		}
		if err := h.RouteAdd(&netlink.Route{Gw: a.Via.AsSlice()}); err != nil {
			return fmt.Errorf("add the default route: %w", err)
		}
		return nil
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

func address(h *netlink.Handle, device string, p netip.Prefix) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", device, p, err)
	}
	return nil
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
