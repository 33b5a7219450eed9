package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/dns"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/node/retry"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	// lookEvery is how often a namespace is looked for, lookAtMost the longest pause for one in which something fails.
	lookEvery  = 250 * time.Millisecond
	lookAtMost = 5 * time.Second
	// Whoever makes a namespace under a name (ip netns) makes a file first, which is heard of at once, and mounts the
	// namespace on it a moment later: for mountWait it is looked for every mountPoll.
	mountPoll = time.Millisecond
	mountWait = 300 * time.Millisecond
)

var errMoved = errors.New("its network namespace is gone, or was replaced meanwhile")

// home is where one workload lives: its network namespace, which may come after the agent, go, and come again under the
// same path. While it is there its traffic is captured and its questions are answered; while it is not, or something is
// wrong there, the control plane is told that the workload is away, and why.
type home struct {
	workload Workload
	log      *slog.Logger
	aliases  string // directory of the aliases
	rules    *capture.Rules
	group    *cgroup.Group
	dns      *dns.Server
	bell     *bell
	keeper   *keeper
	tenants  *tenants
	changed  func()
	// open is how long connections may go on that were open before capture; plaintext, where the workload takes
	// plaintext, if that is known.
	open      time.Duration
	plaintext func() (agentapi.Plaintext, bool)
	// during runs for as long as the namespace is there; nil for nothing.
	during func(context.Context) error

	stay    atomic.Pointer[stay]             // nil while the namespace is not there
	trouble atomic.Pointer[snapshot.Trouble] // nil while nothing is wrong
}

// stay is one namespace, from its coming to its going.
type stay struct {
	pin   *os.File // holds the namespace, so that another one cannot get its number
	at    place
	alias string // its path for Envoy
	dns   *dns.Sockets
	// queues of the namespace's devices; nil where nothing is captured.
	queues    *capture.Queues
	addresses atomic.Pointer[[]netip.Addr] // of the workload, those that a device has
	began     time.Time
	// connections that were open before capture and go on; nil before they were looked for
	open      atomic.Pointer[[]capture.Connection]
	allClosed atomic.Bool // there are none, and there will be none
}

// name tells one namespace of a workload from every other.
func (h *home) name(s *stay) string {
	return h.prefix() + strconv.FormatUint(s.at.inode, 10)
}

func (h *home) prefix() string { return h.workload.Namespace + "." + h.workload.Name + "." }

// enter captures the workload's traffic and opens its sockets, in this order: from the first step on nothing leaves the
// namespace in plaintext.
func (h *home) enter() (err error) {
	s := &stay{began: time.Now()}
	defer func() {
		if err != nil {
			h.close(s)
		}
	}()
	path := h.workload.Netns
	if path != "" {
		if err := h.hold(s); err != nil {
			return fmt.Errorf("workload %s: %w", h.workload.Key(), err)
		}
	}
	left := h.keeper.inherited(h.name(s) + " ")
	defer envoyproc.Release(left[keptDNS])
	if err := h.capture(s, left); err != nil {
		return fmt.Errorf("capture the traffic of workload %s: %w", h.workload.Key(), err)
	}
	if s.dns, err = h.dns.Listen(dns.Listener{
		Workload: h.workload.Key(), Netns: path, Kept: left[keptDNS],
	}); err != nil {
		return err
	}
	if err := h.install(s.dns.Port); err != nil {
		return fmt.Errorf("lead the questions of workload %s to the agent: %w", h.workload.Key(), err)
	}
	if path != "" {
		if !s.there(path) {
			return fmt.Errorf("workload %s: %w", h.workload.Key(), errMoved)
		}
		if s.alias, err = h.link(h.name(s)); err != nil {
			return fmt.Errorf("workload %s: %w", h.workload.Key(), err)
		}
	}
	h.stay.Store(s)
	h.keeper.put(h.name(s), h.kept(s))
	h.note(errors.Join(h.inspect(s), h.followOpen(s)))
	h.changed()
	return nil
}

// keptDNS names the DNS sockets beside the name of their namespace; those that hold a queue have the queue's name
// there.
const keptDNS = "dns"

// kept are the sockets that Envoy keeps.
func (h *home) kept(s *stay) []envoyproc.Held {
	held := []envoyproc.Held{{Name: h.name(s) + " " + keptDNS, Files: s.dns.Files()}}
	if s.queues != nil {
		for q, f := range s.queues.Held() {
			held = append(held, envoyproc.Held{Name: h.name(s) + " " + q.String(), Files: []*os.File{f}})
		}
	}
	return held
}

// capture the namespace's traffic, and hold its queues, also those that were left.
func (h *home) capture(s *stay, left map[string][]*os.File) error {
	held := map[capture.Queue]*os.File{}
	for name, files := range left {
		q, err := capture.ParseQueue(name)
		if err == nil && len(files) == 1 && h.rules != nil {
			held[q] = files[0]
		} else if name != keptDNS {
			envoyproc.Release(files)
		}
	}
	if h.rules == nil {
		return nil
	}
	s.queues = capture.NewQueues(held)
	if err := h.install(wellknown.DNSPort); err != nil {
		return err
	}
	return s.queues.Hold(h.workload.Netns)
}

// install the rules of capture, with questions led to a port.
func (h *home) install(dnsPort uint16) error {
	if h.rules == nil {
		return nil
	}
	rules := *h.rules
	rules.Envoy, rules.DNSPort, rules.LeaveOpen = h.group.ID, dnsPort, h.leaveOpen()
	err := capture.Install(h.workload.Netns, rules)
	if errors.Is(err, capture.ErrFrames) {
		h.log.Warn("capture is not complete", "workload", h.workload.Key(), "error", err)
		return nil
	}
	return err
}

// leave forgets a namespace that is gone. It ends with its last holder, so nothing of the agent holds it any longer.
func (h *home) leave() {
	s := h.stay.Swap(nil)
	if s == nil {
		return
	}
	h.close(s)
	h.changed()
}

// hold the namespace at the workload's path, if it may live there.
func (h *home) hold(s *stay) (err error) {
	if s.pin, err = netns.Open(h.workload.Netns); err != nil {
		return err
	}
	if err := netns.Lasting(h.workload.Netns); err != nil {
		return err
	}
	if s.at, err = placeOfFile(s.pin); err != nil {
		return err
	}
	return h.tenants.enter(s.at, h.workload.Key())
}

// there says whether the path still leads to this namespace.
func (s *stay) there(path string) bool {
	var st unix.Stat_t
	return path == "" || unix.Stat(path, &st) == nil && place{uint64(st.Dev), st.Ino} == s.at
}

func (h *home) close(s *stay) {
	h.tenants.leave(s.at, h.workload.Key())
	if s.dns != nil {
		s.dns.Close()
	}
	if s.queues != nil {
		s.queues.Close()
	}
	if s.pin != nil {
		s.pin.Close()
	}
}

// link makes the namespace's alias, a link to its path that no other namespace of this workload had. Envoy binds a
// listener when the listener is added and reuses the sockets of one that it had at the same path: only another path
// makes it bind in the namespace that is there now. The alias of a namespace stays the same for the next agent.
func (h *home) link(name string) (string, error) {
	alias := filepath.Join(h.aliases, name)
	if to, err := os.Readlink(alias); err != nil || to != h.workload.Netns {
		if err := os.Remove(alias); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("remove an old alias: %w", err)
		}
		if err := os.Symlink(h.workload.Netns, alias); err != nil {
			return "", fmt.Errorf("make an alias of the network namespace: %w", err)
		}
	}
	entries, err := os.ReadDir(h.aliases)
	if err != nil {
		return "", fmt.Errorf("look for old aliases: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), h.prefix()) && e.Name() != name {
			if err := os.Remove(filepath.Join(h.aliases, e.Name())); err != nil {
				return "", fmt.Errorf("remove an old alias: %w", err)
			}
		}
	}
	return alias, nil
}

// run follows the namespace until ctx ends.
func (h *home) run(ctx context.Context) error {
	if h.stay.Load() == nil {
		if err := h.await(ctx); err != nil {
			return err
		}
	}
	for {
		if err := h.live(ctx); err != nil {
			return err
		}
	}
}

// live serves the namespace until it is gone, or something fails, and is entered again. What served it may take its
// time to end: the next is captured meanwhile.
func (h *home) live(ctx context.Context) error {
	s := h.stay.Load()
	present, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	g, serving := errgroup.WithContext(present)
	g.Go(func() error { return s.dns.Run(serving) })
	followed := make(chan struct{})
	g.Go(func() error {
		defer close(followed)
		return h.follow(serving, s)
	})
	if h.during != nil {
		g.Go(func() error { return h.during(serving) })
	}
	why := errMoved
	for s.there(h.workload.Netns) {
		if h.pause(serving) != nil {
			if ctx.Err() != nil {
				return errors.Join(g.Wait(), ctx.Err())
			}
			why = context.Cause(serving)
			break
		}
	}
	gone(why)
	<-followed
	h.keeper.drop(h.name(s))
	h.leave()
	h.note(why)
	next, ctx := errgroup.WithContext(ctx)
	next.Go(func() error { return h.await(ctx) })
	next.Go(func() error {
		_ = g.Wait() // it was told to end
		return nil
	})
	return next.Wait()
}

// await the namespace and enter it. What fails there is tried again less and less often, and at once when something
// comes.
func (h *home) await(ctx context.Context) error {
	again := retry.Backoff{Min: lookEvery, Max: lookAtMost}
	for {
		rung := h.bell.heard()
		err := h.enter()
		if err == nil {
			return nil
		}
		h.note(err)
		wait := lookEvery
		if !netns.Away(err) && !errors.Is(err, errMoved) {
			wait = again.Next()
		}
		if err := h.lookOut(ctx, rung, wait); err != nil {
			return err
		}
	}
}

// lookOut waits for a reason to look for the namespace.
func (h *home) lookOut(ctx context.Context, rung <-chan struct{}, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	case <-rung:
	}
	for end := time.Now().Add(mountWait); time.Now().Before(end); {
		if ns, err := netns.Open(h.workload.Netns); err == nil {
			return ns.Close()
		}
		if err := retry.Sleep(ctx, mountPoll); err != nil {
			return err
		}
	}
	return nil
}

func (h *home) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.bell.heard():
	case <-time.After(lookEvery):
	}
	return nil
}
