package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/snapshot"
)

// inspection is how often a namespace is checked for what no event announces.
const inspection = 2 * time.Second

// setTrouble records what is wrong with this workload, nil for nothing, and signals a change. Other workloads are
// served as before.
func (h *workloadNamespace) setTrouble(err error) {
	var now *snapshot.Trouble
	if err != nil {
		now = &snapshot.Trouble{
			Workload: h.workload.Key(), Reason: err.Error(), Absent: netns.IsAbsent(err) || errors.Is(err, errMoved),
		}
	}
	was := h.trouble.Swap(now)
	switch {
	case was == nil && now == nil, was != nil && now != nil && *was == *now:
		return
	case now == nil:
		h.log.Info("workload served", "workload", h.workload.Key())
	case now.Absent:
		h.log.Warn("the workload's network namespace is not there, waiting for it", "workload", h.workload.Key(),
			"netns", h.workload.Netns)
	default:
		h.log.Error("workload not served, trying again", "workload", h.workload.Key(), "error", err)
	}
	h.changed()
}

// served returns the namespace if the workload can call and be called there.
func (h *workloadNamespace) served() *namespaceInstance {
	if h.trouble.Load() != nil {
		return nil
	}
	return h.instance.Load()
}

// inspect looks for what prevents Envoy from serving the namespace: another program at its ports, or no address.
func (h *workloadNamespace) inspect(s *namespaceInstance) error {
	if h.workload.Netns == "" {
		s.addresses.Store(&h.workload.Addresses)
		return nil
	}
	there, err := addressesIn(h.workload.Netns)
	if err != nil {
		return err
	}
	usable := slices.DeleteFunc(slices.Clone(h.workload.Addresses),
		func(a netip.Addr) bool { return !slices.Contains(there, a) })
	if was := s.addresses.Swap(&usable); was == nil || !slices.Equal(*was, usable) {
		defer h.changed()
	}
	if len(usable) == 0 {
		return fmt.Errorf("no device of its network namespace has an address of the workload's: give one of them %s",
			join(h.workload.Addresses))
	}
	if h.group == nil {
		return nil
	}
	return capture.CheckPorts(h.workload.Netns, h.group.ID)
}

func join(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " or ")
}

// addressesIn returns the addresses of a namespace's devices.
func addressesIn(path string) (out []netip.Addr, err error) {
	err = netns.Do(path, func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the addresses in %s: %w", path, err)
	}
	return out, nil
}

// follow keeps an entered namespace in order until ctx is done, as devices appear, addresses change, and programs take
// and leave Envoy's ports.
func (h *workloadNamespace) follow(ctx context.Context, s *namespaceInstance) error {
	if h.workload.Netns == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	changes, err := changesIn(ctx, h.workload.Netns)
	if err != nil {
		return err
	}
	again := time.NewTicker(inspection)
	defer again.Stop()
	for changed := true; ; {
		if changed {
			if err := h.secure(s); err != nil && s.stillAt(h.workload.Netns) {
				return err
			}
		}
		if err := errors.Join(h.inspect(s), h.followOpen(s)); s.stillAt(h.workload.Netns) {
			h.setTrouble(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes:
			if !ok && ctx.Err() == nil {
				return fmt.Errorf("follow the devices of %s: too many changes at once", h.workload.Netns)
			}
			changed = true
		case <-again.C:
			changed = false
		}
	}
}

// secure makes new devices refuse frames that programs write.
func (h *workloadNamespace) secure(s *namespaceInstance) error {
	if s.queues == nil {
		return nil
	}
	if err := capture.Devices(h.workload.Netns); err != nil && !errors.Is(err, capture.ErrFrames) {
		return fmt.Errorf("capture the traffic of workload %s: %w", h.workload.Key(), err)
	}
	before := len(s.queues.Held())
	if err := s.queues.Hold(h.workload.Netns); err != nil {
		return fmt.Errorf("capture the traffic of workload %s: %w", h.workload.Key(), err)
	}
	if len(s.queues.Held()) > before {
		h.keeper.put(h.name(s), h.heldSockets(s))
	}
	return nil
}

// changesIn signals changes of a namespace's devices and addresses. The channel is closed when ctx is done or the
// kernel had to drop events.
func changesIn(ctx context.Context, path string) (<-chan struct{}, error) {
	ns, err := vnetns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	links, addrs := make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(),
		netlink.LinkSubscribeOptions{Namespace: &ns}); err != nil {
		return nil, fmt.Errorf("follow the devices of %s: %w", path, err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(),
		netlink.AddrSubscribeOptions{Namespace: &ns}); err != nil {
		return nil, fmt.Errorf("follow the addresses of %s: %w", path, err)
	}
	changes := make(chan struct{}, 1)
	go func() {
		complete := true
		for links != nil || addrs != nil {
			var ok bool
			select {
			case _, ok = <-links:
				if !ok {
					links = nil
				}
			case _, ok = <-addrs:
				if !ok {
					addrs = nil
				}
			}
			if complete && !ok {
				close(changes)
				complete = false
			}
			if !complete {
				continue
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, nil
}
