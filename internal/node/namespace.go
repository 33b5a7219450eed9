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
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	// lookEvery is how often a missing namespace is looked for; lookAtMost is the longest pause after failures.
	lookEvery  = 250 * time.Millisecond
	lookAtMost = 5 * time.Second
	// A named namespace (ip netns) appears as a file first, which watch notices at once, and is mounted on it a moment
	// later: so it is looked for every mountPoll during mountWait.
	mountPoll = time.Millisecond
	mountWait = 300 * time.Millisecond
)

var errMoved = errors.New("its network namespace is gone, or was replaced meanwhile")

// workloadNamespace follows the network namespace of one workload. It may appear after the agent has started,
// disappear, and appear again under the same path. While it exists, the agent captures its traffic and answers its DNS
// questions. While it does not, or something is wrong in it, the agent reports the workload as away, and why.
type workloadNamespace struct {
	workload Workload
	log      *slog.Logger
	aliases  string // directory of the aliases
	rules    *capture.Rules
	group    *cgroup.Group
	dns      *dns.Server
	appeared *broadcast
	keeper   *socketKeeper
	tenants  *tenants
	changed  func()
	// openLimit bounds how long connections opened before capture may go on. plaintext returns where the workload
	// accepts plaintext, and whether that is known yet.
	openLimit time.Duration
	plaintext func() (agentapi.Plaintext, bool)
	// serve runs while the namespace exists; nil runs nothing.
	serve func(context.Context) error

	instance atomic.Pointer[namespaceInstance] // nil while the namespace does not exist
	trouble  atomic.Pointer[snapshot.Trouble]  // nil while nothing is wrong
}

// namespaceInstance is one network namespace, from when it appears until it is gone.
type namespaceInstance struct {
	pin   *os.File // holds the namespace, so that no other gets its inode number
	at    place
	alias string // its path for Envoy
	dns   *dns.Sockets
	// queues of the namespace's devices; nil where nothing is captured.
	queues    *capture.Queues
	addresses atomic.Pointer[[]netip.Addr] // of the workload, those that a device has
	began     time.Time
	// connections that were open before capture and go on; nil until they were looked for
	open      atomic.Pointer[[]capture.Connection]
	allClosed atomic.Bool // there are none and will be none
}

// name identifies one instance among all namespaces that the workload has had.
func (h *workloadNamespace) name(s *namespaceInstance) string {
	return h.prefix() + strconv.FormatUint(s.at.inode, 10)
}

func (h *workloadNamespace) prefix() string {
	return h.workload.Namespace + "." + h.workload.Name + "."
}

// enter captures the workload's traffic and then opens its sockets. The order matters: nothing leaves the namespace in
// plaintext from the first step on.
func (h *workloadNamespace) enter() (err error) {
	s := &namespaceInstance{began: time.Now()}
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
	left := h.keeper.takeInherited(h.name(s) + " ")
	defer envoyproc.Release(left[keptDNS])
	if err := h.capture(s, left); err != nil {
		return fmt.Errorf("capture the traffic of workload %s: %w", h.workload.Key(), err)
	}
	if s.dns, err = h.dns.Listen(dns.Listener{
		Workload: h.workload.Key(), Netns: path, Inherited: left[keptDNS],
	}); err != nil {
		return err
	}
	if err := h.install(s.dns.Port); err != nil {
		return fmt.Errorf("lead the questions of workload %s to the agent: %w", h.workload.Key(), err)
	}
	if path != "" {
		if !s.stillAt(path) {
			return fmt.Errorf("workload %s: %w", h.workload.Key(), errMoved)
		}
		if s.alias, err = h.link(h.name(s)); err != nil {
			return fmt.Errorf("workload %s: %w", h.workload.Key(), err)
		}
	}
	h.instance.Store(s)
	h.keeper.put(h.name(s), h.heldSockets(s))
	h.setTrouble(errors.Join(h.inspect(s), h.followOpen(s)))
	h.changed()
	return nil
}

// keptDNS follows the name of the namespace in the name of its DNS sockets. A socket that holds a queue has the queue's
// name instead.
const keptDNS = "dns"

// heldSockets lists the sockets that Envoy holds open for the next agent.
func (h *workloadNamespace) heldSockets(s *namespaceInstance) []envoyproc.HeldSocket {
	held := []envoyproc.HeldSocket{{Name: h.name(s) + " " + keptDNS, Files: s.dns.Files()}}
	if s.queues != nil {
		for q, f := range s.queues.Held() {
			held = append(held, envoyproc.HeldSocket{Name: h.name(s) + " " + q.String(), Files: []*os.File{f}})
		}
	}
	return held
}

// capture captures the namespace's traffic and holds its queues, including those of an earlier agent.
func (h *workloadNamespace) capture(s *namespaceInstance, left map[string][]*os.File) error {
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

// install installs the capture rules, which redirect DNS questions to dnsPort.
func (h *workloadNamespace) install(dnsPort uint16) error {
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

// leave releases a namespace that is gone. The kernel ends a namespace with its last holder, so the agent must not hold
// it.
func (h *workloadNamespace) leave() {
	s := h.instance.Swap(nil)
	if s == nil {
		return
	}
	h.close(s)
	h.changed()
}

// hold opens the namespace at the workload's path and claims it for the workload.
func (h *workloadNamespace) hold(s *namespaceInstance) (err error) {
	if s.pin, err = netns.Open(h.workload.Netns); err != nil {
		return err
	}
	if err := netns.CheckStable(h.workload.Netns); err != nil {
		return err
	}
	if s.at, err = placeOfFile(s.pin); err != nil {
		return err
	}
	return h.tenants.enter(s.at, h.workload.Key())
}

// stillAt reports whether path still leads to this namespace.
func (s *namespaceInstance) stillAt(path string) bool {
	var st unix.Stat_t
	return path == "" || unix.Stat(path, &st) == nil && place{uint64(st.Dev), st.Ino} == s.at
}

func (h *workloadNamespace) close(s *namespaceInstance) {
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

// link makes the namespace's alias: a symbolic link to its path under a name that no other instance had. Envoy reuses
// the sockets of an earlier listener at the same path, so only a new path makes it bind in the present namespace. The
// next agent uses the same alias.
func (h *workloadNamespace) link(name string) (string, error) {
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

// run follows the namespace until ctx is done.
func (h *workloadNamespace) run(ctx context.Context) error {
	if h.instance.Load() == nil {
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

// live serves the namespace until it is gone or something fails, and then enters it again. It captures the next
// instance while what served the last one still shuts down.
func (h *workloadNamespace) live(ctx context.Context) error {
	s := h.instance.Load()
	present, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	g, serving := errgroup.WithContext(present)
	g.Go(func() error { return s.dns.Run(serving) })
	followed := make(chan struct{})
	g.Go(func() error {
		defer close(followed)
		return h.follow(serving, s)
	})
	if h.serve != nil {
		g.Go(func() error { return h.serve(serving) })
	}
	why := errMoved
	for s.stillAt(h.workload.Netns) {
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
	h.setTrouble(why)
	next, ctx := errgroup.WithContext(ctx)
	next.Go(func() error { return h.await(ctx) })
	next.Go(func() error {
		_ = g.Wait() // it was told to end
		return nil
	})
	return next.Wait()
}

// await waits for the namespace and enters it. A failure is retried at growing intervals, and at once when something
// appears.
func (h *workloadNamespace) await(ctx context.Context) error {
	again := retry.Backoff{Min: lookEvery, Max: lookAtMost}
	for {
		appeared := h.appeared.wait()
		err := h.enter()
		if err == nil {
			return nil
		}
		h.setTrouble(err)
		wait := lookEvery
		if !netns.IsAbsent(err) && !errors.Is(err, errMoved) {
			wait = again.Next()
		}
		if err := h.waitForNamespace(ctx, appeared, wait); err != nil {
			return err
		}
	}
}

// waitForNamespace waits until it is time to look for the namespace again.
func (h *workloadNamespace) waitForNamespace(ctx context.Context, appeared <-chan struct{}, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	case <-appeared:
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

func (h *workloadNamespace) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.appeared.wait():
	case <-time.After(lookEvery):
	}
	return nil
}
