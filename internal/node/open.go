package node

import (
	"context"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
)

const (
	// leaveOpen is how long connections may go on that were open before capture, unless the settings say otherwise.
	leaveOpen = 24 * time.Hour
	// modeWait is how long they go on while the control plane has not said how strict the workload is.
	modeWait = time.Minute
	// mostShown bounds how many of them are reported and logged.
	mostShown = 20
)

// leaveOpen returns how long connections of the workload may continue that are open when it is captured: zero if the
// workload is known to accept only mutual TLS.
func (h *workloadNamespace) leaveOpen() time.Duration {
	if p, known := h.plaintext(); known && !p.Taken() {
		return 0
	}
	return h.openLimit
}

// plaintextCallers returns those of a workload that STRICT would refuse: none where it is STRICT.
func (a *Agent) plaintextCallers(workload string) []string {
	if p, known := a.plaintextOf(workload); !known || !p.Taken() {
		return nil
	}
	return a.logs.Plaintext(workload)
}

// mayStayOpen reports whether a connection that was open before capture may go on.
func (h *workloadNamespace) mayStayOpen(s *namespaceInstance, c capture.Connection) bool {
	p, known := h.plaintext()
	if !known {
		return time.Since(s.began) < modeWait
	}
	return p.At(c.Local.Port())
}

// followOpen finds out which connections still go on past Envoy, and removes the others from the capture rules.
func (h *workloadNamespace) followOpen(s *namespaceInstance) error {
	if h.rules == nil || s.allClosed.Load() {
		return nil
	}
	open, err := capture.OpenConnections(h.workload.Netns,
		func(c capture.Connection) bool { return h.mayStayOpen(s, c) })
	if err != nil {
		return err
	}
	was := s.open.Swap(&open)
	switch {
	case was == nil && len(open) > 0:
		h.log.Warn("connections that were open before capture go on outside the mesh", "workload", h.workload.Key(),
			"connections", len(open), "examples", strings.Join(connectionTexts(open), ", "))
	case was != nil && len(*was) > 0 && len(open) == 0:
		h.log.Info("no connection is left that was open before capture", "workload", h.workload.Key())
	}
	if was == nil && len(open) > 0 || was != nil && !slices.Equal(*was, open) {
		h.changed()
	}
	if len(open) > 0 {
		return nil
	}
	s.allClosed.Store(true)
	return h.install(s.dns.Port) // without an exception
}

// bypassing returns the part of the workload's traffic that bypasses its Envoy.
func (h *workloadNamespace) bypassing() snapshot.Outside {
	out := snapshot.Outside{Workload: h.workload.Key()}
	s := h.instance.Load()
	if s == nil || h.rules == nil {
		return out
	}
	out.Ports = h.rules.ExcludeInboundPorts
	if open := s.open.Load(); open != nil {
		out.Count, out.Connections = len(*open), connectionTexts(*open)
	}
	return out
}

// forgetPlaintext drops plaintext callers from the report that have joined the mesh or are gone.
func (a *Agent) forgetPlaintext(ctx context.Context) error {
	for {
		if err := retry.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		if a.logs.ForgetPlaintext(time.Now()) {
			a.reportChanged()
		}
	}
}

func connectionTexts(open []capture.Connection) []string {
	var out []string
	for _, c := range open[:min(len(open), mostShown)] {
		out = append(out, c.String())
	}
	return out
}
