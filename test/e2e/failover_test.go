//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// foLoad is 50 calls a second, until it is ended.
type foLoad struct {
	name string
	stop chan struct{}
	all  sync.WaitGroup

	mu     sync.Mutex // guards the rest
	phases []foCount  // by when a call began, or failed
}

type foCount struct {
	calls, failed int
	first         string // failure
	slowest       time.Duration
	by            map[string]int
}

func (l *foLoad) run(call func(n int) (string, error)) {
	defer l.all.Done()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		phase := len(l.phases) - 1
		l.mu.Unlock()
		l.all.Go(func() {
			began := time.Now()
			by, err := call(n)
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				phase = len(l.phases) - 1
			}
			c := &l.phases[phase]
			c.calls++
			c.slowest = max(c.slowest, time.Since(began))
			if err != nil {
				if c.failed++; c.first == "" {
					c.first = err.Error()
				}
				return
			}
			c.by[by]++
		})
	}
}

func (l *foLoad) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, foCount{by: map[string]int{}})
}

// foPhases are the parts of a death, in their order.
var foPhases = []string{"well", "dies", "is down", "returns"}

// loads begins one load for each import that fails over.
func (w *foWorld) loads(t *testing.T, c foClient) []*foLoad {
	t.Helper()
	var out []*foLoad
	begin := func(name string, call func(n int) (string, error)) {
		l := &foLoad{name: name, stop: make(chan struct{})}
		l.next()
		l.all.Add(1)
		go l.run(call)
		out = append(out, l)
	}
	for _, name := range []string{"first", "half", "backed"} {
		addr, kept, fresh := w.reached(t, c, name), c.client(true), c.client(false)
		begin(name, func(n int) (string, error) {
			if n%2 == 0 {
				return c.get(kept, addr, name)
			}
			return c.get(fresh, addr, name)
		})
	}
	addr := w.reached(t, c, "raw")
	begin("raw", func(int) (string, error) { return c.hear(addr + ":7000") })
	return out
}

// reached waits until an import is served, and returns its address.
func (w *foWorld) reached(t *testing.T, c foClient, name string) (addr string) {
	t.Helper()
	eventually(t, 30*time.Second, func() (err error) {
		if addr, err = c.address(name); err != nil {
			return err
		}
		by := ""
		if strings.Contains(name, "raw") {
			by, err = c.hear(addr + ":7000")
		} else {
			by, err = c.get(c.client(false), addr, name)
		}
		if err == nil && by != "one" && name != "half" {
			err = fmt.Errorf("%s is served by %s", name, by)
		}
		return err
	})
	return addr
}

// TestFailover has the first source of four imports die in different ways while 50 calls a second go to each, and
// return.
func TestFailover(t *testing.T) {
	w := newFailoverWorld(t)
	c := foClient{w.meshes["shop"].ns("app")}
	one := w.meshes["one"]
	t.Run("errors of a program are answers", func(t *testing.T) { w.testErrors(t, c) })
	for _, death := range []struct {
		name       string
		end, begin func()
		most       int // failures while it dies, an import
		raw        int // of raw TCP, where a call cannot be tried again once its connection is taken
	}{
		// That nobody takes raw TCP any more is known a fifth of a second later at most; an idle machine needs a
		// twentieth.
		{"process killed", one.app.stop, func() { one.app.start(t) }, 3, 12},
		{"wire dark", func() { one.dark(t, true) }, func() { one.dark(t, false) }, 5, 5},
		{
			"gateway told to stop", func() { one.gateway.Stop(20 * time.Second) },
			func() { one.start(t, "gateway", "gw") }, 0, 10,
		},
		{"mesh killed", func() { one.kill(t) }, func() { one.restart(t) }, 5, 5},
	} {
		t.Run(death.name, func(t *testing.T) {
			loads := w.loads(t, c)
			for i, act := range []func(){func() {}, death.end, func() {}, death.begin} {
				if i > 0 {
					for _, l := range loads {
						l.next()
					}
				}
				act()
				waittest.Quiet([]time.Duration{1, 3, 3, 3}[i] * time.Second) // the load itself is what is tried
			}
			for _, l := range loads {
				close(l.stop)
				l.all.Wait()
				for i, p := range l.phases {
					t.Logf("%-7s %-8s %3d calls, %d failed, slowest %v, by %v %s", l.name, foPhases[i], p.calls,
						p.failed, p.slowest.Round(time.Millisecond), p.by, p.first)
					most := 0
					switch {
					case foPhases[i] != "dies":
					case l.name == "raw":
						most = death.raw
					default:
						most = death.most
					}
					if p.failed > most {
						t.Errorf("%s, %s: %d of %d calls failed, at most %d may; the first: %s", l.name, foPhases[i],
							p.failed, p.calls, most, p.first)
					}
				}
			}
			for _, name := range []string{"first", "raw", "backed"} {
				w.reached(t, c, name) // by one again
			}
		})
	}
	t.Run("suspended", func(t *testing.T) { w.testSuspended(t, c) })
}

// testErrors: whatever status a program answers with, in HTTP or in gRPC, its source is not left for it.
func (w *foWorld) testErrors(t *testing.T, c foClient) {
	addr, client, h2 := w.reached(t, c, "first"), c.client(false), c.clientHTTP2()
	for what, failing := range map[string]func() (string, error){
		"503": func() (string, error) { return c.fail(client, addr, "first", "text/plain") },
		"gRPC, UNAVAILABLE without a message": func() (string, error) {
			return c.fail(h2, addr, "first", "application/grpc")
		},
	} {
		for range 10 { // in a row, as Envoy counts them
			if by, err := failing(); err != nil || by != "one" {
				t.Fatalf("%s is answered by %q, %v", what, by, err)
			}
		}
		if by, err := c.get(client, addr, "first"); err != nil || by != "one" {
			t.Errorf("after %s a call is served by %q, %v", what, by, err)
		}
	}
}

// testSuspended: what one alone serves keeps its name and address, says why it is not served, and comes back on the
// very connection that was refused. What two serves too goes on.
func (w *foWorld) testSuspended(t *testing.T, c foClient) {
	addr, raw := w.reached(t, c, "only"), w.reached(t, c, "only-raw")
	kept := c.client(true)
	loads := w.loads(t, c)
	for _, mesh := range []struct {
		name, peer, reason string
	}{{"shop", "one", "peer one is suspended"}, {"one", "shop", "503"}} {
		if _, err := c.get(kept, addr, "only"); err != nil {
			t.Fatal(err)
		}
		w.meshes[mesh.name].order(t, "PeerSuspend", mesh.peer)
		eventually(t, 30*time.Second, func() error {
			switch by, err := c.get(kept, addr, "only"); {
			case err == nil:
				return fmt.Errorf("still served by %s", by)
			case !strings.HasPrefix(err.Error(), "503 ") || !strings.Contains(err.Error(), mesh.reason):
				return fmt.Errorf("refused with %w, not with 503 and %q", err, mesh.reason)
			}
			return nil
		})
		if now, err := c.address("only"); now != addr {
			t.Errorf("the address was %s and is %s %v", addr, now, err)
		}
		if by, err := c.hear(raw + ":7000"); by != "" || err == nil {
			t.Errorf("raw TCP said %q", by)
		}
		w.meshes[mesh.name].order(t, "PeerResume", mesh.peer)
		eventually(t, 30*time.Second, func() error { _, err := c.get(kept, addr, "only"); return err })
		eventually(t, 30*time.Second, func() error { _, err := c.hear(raw + ":7000"); return err })
	}
	for _, l := range loads {
		close(l.stop)
		l.all.Wait()
		p := l.phases[0]
		t.Logf("%-7s %3d calls, %d failed, slowest %v, by %v %s", l.name, p.calls, p.failed,
			p.slowest.Round(time.Millisecond), p.by, p.first)
		if p.failed > 10 {
			t.Errorf("%s: %d of %d calls failed; the first: %s", l.name, p.failed, p.calls, p.first)
		}
	}
}
