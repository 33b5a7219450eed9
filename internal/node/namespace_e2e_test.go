//go:build e2e

package node

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"

	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
)

// vanish removes a named network namespace; it ends with its last holder.
func vanish(t *testing.T, path string) {
	t.Helper()
	must(t, vnetns.DeleteNamed(filepath.Base(path)))
}

// reappear makes it again under the same path.
func reappear(t *testing.T, path string) {
	t.Helper()
	inThread(t, func() {
		ns, err := vnetns.NewNamed(filepath.Base(path))
		must(t, err)
		ns.Close()
	})
}

// reported waits until the control plane was last told of so many workloads.
func (p *pair) reported(t *testing.T, n int) {
	t.Helper()
	eventually(t, 5*time.Second, fmt.Sprintf("%d workloads reported", n), func() error {
		if got := len(p.control.lastReport().Workloads); got != n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

func TestEnvoyFollowsANamespaceThatReturns(t *testing.T) {
	p := newTrio(t, "returns")
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call from web", p.call)
	eventually(t, 10*time.Second, "a call from shop", func() error { return call(p.shop) })
	calls, plain := load(4, p.call), p.noPlaintext()
	for round := range 3 {
		if round == 0 { // the others come back before anyone could notice
			vanish(t, p.shop)
			p.reported(t, 2)
		} else {
			vanish(t, p.shop)
		}
		reappear(t, p.shop)
		p.joinShop(t)
		fromShop := load(1, func() error { return notHeard(p.shop, "http://10.79.1.3:8080/") })
		eventually(t, 5*time.Second, "a call from the shop that returned", func() error { return call(p.shop) })
		waittest.Quiet(300 * time.Millisecond) // it may work again sooner than plaintext was tried once
		never(t, "plaintext from the returned shop", fromShop)
		// the shop has no table here
		if r, err := ask(p.shop, "udp", "pay.default.svc.cluster.local.", 1); err != nil || r.Rcode != 2 {
			t.Errorf("DNS: %v, %v", r, err)
		}
	}
	never(t, "calls from web meanwhile", calls)
	never(t, "plaintext from web", plain)
}

func TestEnvoyFollowsAServerThatReturns(t *testing.T) {
	p := newPair(t, "server")
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	plain := p.noPlaintext()
	vanish(t, p.pay)
	p.reported(t, 1)
	reappear(t, p.pay)
	p.join(t)
	eventually(t, 5*time.Second, "a call to the server that returned", p.call)
	never(t, "plaintext", plain)
}

// The agent that comes back finds another namespace than the one that Envoy is bound in.
func TestEnvoyFollowsANamespaceReplacedWhileTheAgentWasAway(t *testing.T) {
	p := newTrio(t, "replaced")
	settings := p.file(t)
	agent := startAgent(t, settings)
	eventually(t, 10*time.Second, "a call from web", p.call)
	eventually(t, 10*time.Second, "a call from shop", func() error { return call(p.shop) })
	pid, before := pidIn(t, p.cfg.RunDir), inode(t, p.shop)
	calls := load(2, p.call)
	end(agent, syscall.SIGKILL)
	vanish(t, p.shop)
	reappear(t, p.shop)
	if inode(t, p.shop) == before {
		t.Error("the number of the namespace was given out again although Envoy holds it")
	}
	startAgent(t, settings)
	eventually(t, 5*time.Second, "capture", func() error {
		p.joinShop(t)
		return nil
	})
	eventually(t, 5*time.Second, "a call from the shop that returned", func() error { return call(p.shop) })
	never(t, "calls from web meanwhile", calls)
	if now := pidIn(t, p.cfg.RunDir); now != pid {
		t.Errorf("Envoy is process %d, was %d", now, pid)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	n, err := netns.Inode(path)
	must(t, err)
	return n
}

func TestEnvoyStartOrderDoesNotMatter(t *testing.T) {
	t.Run("agent before control plane", func(t *testing.T) {
		p := newPair(t, "order-control")
		p.control.stop()
		runAgent(t, p.cfg)
		plain := p.noPlaintext()
		waittest.Quiet(500 * time.Millisecond)
		if err := p.call(); err == nil {
			t.Error("a call without any configuration")
		}
		p.control.start(p.control.address)
		eventually(t, 10*time.Second, "a call", p.call)
		never(t, "plaintext", plain)
	})
	t.Run("Envoy before agent and control plane", func(t *testing.T) {
		p := newPair(t, "order-envoy")
		p.control.stop()
		settings := p.file(t)
		agent := startAgent(t, settings)
		eventually(t, 10*time.Second, "Envoy", func() error { return p.envoyAnswers() })
		pid := pidIn(t, p.cfg.RunDir)
		end(agent, syscall.SIGKILL)
		plain := p.noPlaintext()
		p.control.start(p.control.address)
		waittest.Pace(300 * time.Millisecond)
		startAgent(t, settings)
		eventually(t, 10*time.Second, "a call", p.call)
		never(t, "plaintext", plain)
		if now := pidIn(t, p.cfg.RunDir); now != pid {
			t.Errorf("Envoy is process %d, was %d", now, pid)
		}
	})
	t.Run("namespaces after the agent", func(t *testing.T) {
		p := newPair(t, "order-netns")
		vanish(t, p.web)
		vanish(t, p.pay)
		runAgent(t, p.cfg)
		p.reported(t, 0)
		began := time.Now()
		reappear(t, p.pay)
		reappear(t, p.web)
		p.join(t)
		plain := p.noPlaintext()
		eventually(t, 10*time.Second, "a call", p.call)
		t.Logf("from the namespaces' coming to the first call: %v", time.Since(began).Round(time.Millisecond))
		never(t, "plaintext", plain)
	})
}

// envoyAnswers asks the Envoy of the pair's agent whether it lives.
func (p *pair) envoyAnswers() error {
	a, err := New(p.cfg)
	if err != nil {
		return err
	}
	if err := a.Ready(p.control.t.Context()); err != nil && !strings.Contains(err.Error(), "not joined") {
		return err
	}
	_, err = a.proxies[0].envoy.Stats(p.control.t.Context())
	return err
}
