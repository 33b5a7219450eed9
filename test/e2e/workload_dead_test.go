//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestDeadHost: a host of two that serve a name is gone from one moment to the next, agent, Envoy, programs and wire:
// nothing there answers a SYN, and no connection to it is closed. No call fails; from five seconds later on none waits
// for it any more, and the finding says since when it is silent. It is back at once.
func TestDeadHost(t *testing.T) {
	s := openShop(t, shopMesh, map[string][]member{
		"front": append(callers[:len(callers):len(callers)], rollers[0]),
		"back":  append(servers[:len(servers):len(servers)], rollers[1]),
	})
	s.write(t, "roll.yaml", rollServices)
	s.startRoller(t, rollers[0])
	dead := s.startRoller(t, rollers[1])
	ask := s.askRollers(t, "HTTP/1.1", "80")
	within(t, 30*time.Second, "both serve", func() error { return byBoth(t, ask) })

	type call struct{ began, ended time.Time }
	var wg sync.WaitGroup
	var stopped atomic.Bool
	var mu sync.Mutex
	var calls []call
	for range 4 {
		wg.Go(func() {
			for !stopped.Load() {
				c := call{began: time.Now()}
				if _, err := ask(t.Context(), "GET", ""); err != nil {
					t.Errorf("a call at %s failed: %v", c.began.Format(time.StampMilli), err)
				}
				c.ended = time.Now()
				mu.Lock()
				calls = append(calls, c)
				mu.Unlock()
				waittest.Pace(10 * time.Millisecond)
			}
		})
	}
	waittest.Quiet(500 * time.Millisecond)
	s.wireOf(t, rollers[1], false)
	envoy := s.envoyPID(t, "back")
	s.procs["back"].Kill()
	need(t, syscall.Kill(envoy, syscall.SIGKILL))
	dead.Kill()
	died := time.Now()
	within(t, 30*time.Second, "the finding", func() error { return s.silent(t, true) })
	took := time.Since(died)
	waittest.Quiet(8*time.Second - took)
	stopped.Store(true)
	wg.Wait()
	late := 0
	for _, c := range calls {
		if c.began.Sub(died) < 5*time.Second {
			continue
		}
		if late++; c.ended.Sub(c.began) > 2*time.Second { // connecting in vain takes 3
			t.Errorf("a call begun %v after the host had died took %v", c.began.Sub(died), c.ended.Sub(c.began))
		}
	}
	t.Logf("silent after %v; %d calls, %d of them from 5 s after on", took.Round(time.Millisecond), len(calls), late)
	if late < 50 {
		t.Errorf("only %d calls from 5 s after on", late)
	}

	s.wireOf(t, rollers[1], true)
	s.startRoller(t, rollers[1])
	p, err := s.lab.Start(lab.Command{
		Name: "back-again", Namespace: s.netns("host"), Path: filepath.Join(binaries, "isthmus"),
		Args: []string{"node", "--config", s.path("back.yaml")},
	})
	need(t, err)
	s.procs["back"] = p
	within(t, 30*time.Second, "it is back", func() error { return byBoth(t, ask) })
	within(t, 30*time.Second, "the finding is gone", func() error { return s.silent(t, false) })
}

// byBoth complains unless calls are served by both rollers in turn.
func byBoth(t *testing.T, ask rollAsker) error {
	var by []string
	for range 4 {
		name, err := ask(t.Context(), "POST", "first")
		if err != nil {
			return err
		}
		by = append(by, name)
	}
	if by[0] == by[1] || by[0] != by[2] || by[1] != by[3] {
		return fmt.Errorf("served by %q", by)
	}
	return nil
}

func (s *shop) wireOf(t *testing.T, m member, up bool) {
	t.Helper()
	need(t, lab.Inside(s.netns("host"), func() error {
		l, err := netlink.LinkByName("v-" + m.name)
		switch {
		case err != nil:
			return err
		case up:
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	}))
}

// silent complains unless the node back is found silent, or is not.
func (s *shop) silent(t *testing.T, want bool) error {
	st, err := s.status(t.Context())
	if err != nil {
		return err
	}
	for _, f := range st.Findings {
		if f.Code == "ISM0300" && f.Object.String() == "node back" && strings.Contains(f.Message, "default/roll-2") {
			if want {
				return nil
			}
			return fmt.Errorf("still %s", f.Message)
		}
	}
	if want {
		return fmt.Errorf("no finding among %v", st.Findings)
	}
	return nil
}
