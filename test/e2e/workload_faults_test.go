//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// readiness: a server that says that it is not ready gets no requests within two seconds, and none fails meanwhile.
func (s *shop) readiness(t *testing.T) {
	within(t, 5*time.Second, "both of the pool are asked", func() error { return s.asked("pool-1", "pool-2") })
	busy := s.startLoad(t, "alice", "pool", 100)
	s.app("pool-1:8080").sick.Store(true)
	took := within(t, 2*time.Second, "pool-1 is left alone", func() error {
		s.app("pool-1:8080").arrived()
		for range 10 {
			if r := s.get("alice", "pool", "/anew"); r.err != nil || r.status != 200 {
				return errors.New(r.String())
			}
		}
		// Neither by these nor on the connection that the load keeps.
		if got := s.app("pool-1:8080").arrived(); len(got) > 0 {
			return fmt.Errorf("it is asked %d times", len(got))
		}
		return nil
	})
	t.Logf("pool-1 was left alone after %s", took.Round(time.Millisecond))
	s.app("pool-1:8080").sick.Store(false)
	took = within(t, 2*time.Second, "pool-1 is asked again", func() error { return s.asked("pool-1", "pool-2") })
	t.Logf("pool-1 was asked again after %s; %d requests, 0 failed", took.Round(time.Millisecond), busy.stop(t))
}

func (s *shop) asked(servers ...string) error {
	for range 10 {
		if err := s.expect(200, s.get("alice", "pool", "/")); err != nil {
			return err
		}
	}
	for _, name := range servers {
		if len(s.app(name+":8080").arrived()) == 0 {
			return fmt.Errorf("%s is not asked", name)
		}
	}
	return nil
}

// Two states of the policies of the server pair. Each is an ALLOW and a DENY; under either, /all passes and neither /ab
// nor /ba does, but of the ALLOW of one beside the DENY of the other one of the two would.
func pairState(name, allowed, denied string) string {
	return policy("default", "pair-allow", `
selector: {matchLabels: {app: pair}}
rules: [{to: [{operation: {paths: [/all, /only-`+name+`, `+allowed+`]}}]}]`) + policy("default", "pair-deny", `
selector: {matchLabels: {app: pair}}
action: DENY
rules: [{to: [{operation: {paths: [`+denied+`]}}]}]`)
}

var pairStates = map[string]string{"a": pairState("a", "/ab", "/ab"), "b": pairState("b", "/ba", "/ba")}

// controlKilled ends the control plane at random moments, while policies are pushed and three callers ask: no request
// fails, and none is answered under policies that nobody wrote.
func (s *shop) controlKilled(t *testing.T) {
	s.longCertificates(t)
	s.write(t, "pair.yaml", pairStates["a"])
	within(t, 5*time.Second, "state a", func() error { return s.expect(200, s.get("carol", "pair", "/only-a")) })
	var asked, changes atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	wrong := func(format string, args ...any) { t.Errorf(time.Now().Format(time.StampMilli)+" "+format, args...) }
	for n := range 6 {
		all.Go(func() { s.askPair(stop, callers[n%3].name, n, &asked, &changes, wrong) })
	}
	last := "a"
	all.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(10+rand.IntN(60)) * time.Millisecond):
			}
			last = []string{"b", "a"}[n%2]
			if err := s.replace(s.path("config", "pair.yaml"), []byte(pairStates[last])); err != nil {
				wrong("write: %v", err)
			}
		}
	})
	began := time.Now()
	kills := 0
	for ; time.Since(began) < 10*time.Second; kills++ {
		waittest.Pace(time.Duration(rand.IntN(900)) * time.Millisecond)
		s.procs["control"].Kill()
		need(t, s.runControl(t))
	}
	close(stop)
	all.Wait()
	other := map[string]string{"a": "b", "b": "a"}[last]
	took := within(t, 5*time.Second, "what was written last", func() error {
		return errors.Join(s.expect(200, s.get("bob", "pair", "/only-"+last)),
			s.expect(403, s.get("bob", "pair", "/only-"+other)))
	})
	t.Logf("%d kills, %d changes seen, %d requests; the last state after %s", kills, changes.Load(), asked.Load(),
		took.Round(time.Millisecond))
	if changes.Load() < 4 || asked.Load() < 500 {
		t.Error("too little happened for this to say anything")
	}
	within(t, 5*time.Second, "the mesh is in step", func() error { return s.ready(t.Context()) })
}

// longCertificates ends the ten-second certificates: they would run out in what follows, and rightly.
func (s *shop) longCertificates(t *testing.T) {
	s.write(t, "mesh.yaml", strings.Replace(shopMesh, "certificateTTL: 10s", "certificateTTL: 5m", 1))
	within(t, 15*time.Second, "longer certificates", func() error {
		st, err := s.status(t.Context())
		if err != nil {
			return err
		}
		for _, p := range st.Proxies {
			for _, c := range p.Certs {
				if time.Until(c.NotAfter) < time.Minute {
					return fmt.Errorf("%s at %s lives until %s", c.SPIFFEID, p.Name, c.NotAfter)
				}
			}
		}
		return nil
	})
}

// askPair asks in turn, on a connection that it keeps and on new ones.
func (s *shop) askPair(
	stop chan struct{}, from string, n int, asked, changes *atomic.Int64, wrong func(string, ...any),
) {
	var kept *line
	var before int
	for ; ; n++ {
		select {
		case <-stop:
			if kept != nil {
				kept.Close()
			}
			return
		default:
		}
		if kept == nil || n%20 == 0 {
			if kept != nil {
				kept.Close()
			}
			var err error
			if kept, err = s.open(from, "pair"); err != nil {
				wrong("%s: connect: %v", from, err)
				kept = nil
				continue
			}
		}
		for path, want := range map[string]int{"/all": 200, "/ab": 403, "/ba": 403, "/only-a": 0} {
			asked.Add(1)
			r := kept.request("GET", path)
			switch {
			case r.err != nil:
				wrong("%s: %s: %v", from, path, r.err)
				kept.Close()
				kept = nil
			case want == 0 && r.status != before:
				before = r.status
				changes.Add(1)
			case want != 0 && r.status != want:
				wrong("%s: %s: %s, want %d", from, path, r, want)
			}
			if kept == nil {
				break
			}
		}
		waittest.Pace(5 * time.Millisecond)
	}
}

// envoyKilled ends the servers' Envoy: requests succeed again within a second, and meanwhile nobody is heard in
// plaintext.
func (s *shop) envoyKilled(t *testing.T) {
	s.apply(t, "web", allow(`[{}]`))
	for node := range s.nodes {
		pid := s.envoyPID(t, node)
		conns := s.conns()
		need(t, syscall.Kill(pid, syscall.SIGKILL))
		began := time.Now()
		plain := 0
		var took time.Duration
		for {
			// While there is no Envoy, plaintext is refused at the workload's border.
			if c, err := s.dial(outsider, "10.93.0.21:7000"); err == nil {
				if text, _ := hear(c, 5*time.Millisecond); strings.Contains(text, "banner") {
					t.Errorf("the outsider heard %q", text)
				}
				c.Close()
			}
			plain++
			if s.get("alice", "steady", "/").status == 200 {
				took = time.Since(began)
				break
			}
			if time.Since(began) > 10*time.Second {
				t.Fatalf("the Envoy of %s did not come back within 10 s", node)
			}
			waittest.Pace(5 * time.Millisecond)
		}
		if took > 3*time.Second {
			t.Errorf("the Envoy of %s was back only after %s", node, took)
		}
		if n := s.conns() - conns; n != 0 {
			t.Errorf("the server was connected to %d times", n)
		}
		t.Logf("the Envoy of %s was back after %s; %d tries in plaintext", node, took.Round(time.Millisecond), plain)
		within(t, 5*time.Second, "the mesh is in step", func() error { return s.ready(t.Context()) })
	}
}

// envoyPID finds the Envoy of a node of this test by its command line.
func (s *shop) envoyPID(t *testing.T, node string) int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	need(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(b, []byte(s.envoy)) || !bytes.Contains(b, []byte(s.path(node, "run"))) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		need(t, err)
		return pid
	}
	t.Fatalf("%s has no Envoy", node)
	return 0
}
