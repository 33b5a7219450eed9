package node

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"isthmus.dev/isthmus/internal/retry"
)

const (
	// spreadTime is how long callers have to learn that an agent's workloads, or its gateway, are not ready: the
	// control plane tells those of this mesh, and peers' gateways ask every second.
	spreadTime = 1500 * time.Millisecond
	// drainTime is the default bound on how long requests may then go on; maxDrainTime bounds the setting.
	drainTime    = 5 * time.Second
	maxDrainTime = 20 * time.Second
	drainPoll    = 50 * time.Millisecond
)

// leave moves callers elsewhere before Envoy ends. It reports the workloads as not ready, makes responses ask clients
// to close the connection, and waits for the requests in progress. A second signal ends the wait.
func (a *Agent) leave(ctx context.Context) {
	most := *a.cfg.Envoy.DrainTime
	if a.cfg.Envoy.KeepOnStop || most == 0 || !a.serves() {
		return
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	a.log.Info("stopping: callers are moved elsewhere first", "for", spreadTime.String(),
		"drain_time", most.String())
	a.leaving.Store(true)
	a.reportChanged()
	for _, p := range a.serving() {
		if err := p.envoy.Drain(ctx); err != nil {
			a.log.Warn("Envoy does not drain: its connections are closed abruptly", "error", err)
		}
	}
	if retry.Sleep(ctx, spreadTime) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for a.activeRequests(ctx) > 0 && retry.Sleep(ctx, drainPoll) == nil {
	}
}

// serves reports whether anyone may be calling what this agent serves.
func (a *Agent) serves() bool {
	if a.control.Identity() == nil || a.cfg.Gateway != nil {
		return a.control.Identity() != nil
	}
	for _, h := range a.namespaces {
		if h.instance.Load() != nil && a.probes.Ready(h.workload.Key()) {
			return true
		}
	}
	return false
}

// serving returns the proxies that have something to serve.
func (a *Agent) serving() (out []*proxy) {
	for i, p := range a.proxies {
		if p.workload == "" || a.namespaces[i].instance.Load() != nil {
			out = append(out, p)
		}
	}
	return out
}

// activeRequests counts the requests in all Envoys; an Envoy that does not answer has none.
func (a *Agent) activeRequests(ctx context.Context) (n uint64) {
	for _, p := range a.serving() {
		active, err := p.envoy.Requests(ctx)
		if err != nil {
			a.log.Debug("requests not counted", "error", err)
			continue
		}
		n += active
	}
	return n
}
