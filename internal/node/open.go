package node

import (
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/capture"
)

const (
	// leaveOpen is how long connections may go on that were open before capture, unless the settings say otherwise.
	leaveOpen = 24 * time.Hour
	// modeWait is how long they go on while the control plane has not said how strict the workload is.
	modeWait = time.Minute
	// mostShown bounds how many of them are reported and logged.
	mostShown = 20
)

// leaveOpen is how long connections of the workload may go on that are open when it is captured: a workload of which it is
// known that it takes mutual TLS alone has none.
func (h *home) leaveOpen() time.Duration {
	if p, known := h.plaintext(); known && !p.Any && len(p.Except) == 0 {
		return 0
	}
	return h.open
}

// mayGoOn says whether a connection that was open before capture may go on.
func (h *home) mayGoOn(s *stay, c capture.Connection) bool {
	p, known := h.plaintext()
	if !known {
		return time.Since(s.began) < modeWait
	}
	return p.At(c.Local.Port())
}

// followOpen looks which connections still go on past Envoy, and has capture forget the others.
func (h *home) followOpen(s *stay) error {
	if h.rules == nil || s.allClosed.Load() {
		return nil
	}
	open, err := capture.Open(h.workload.Netns, func(c capture.Connection) bool { return h.mayGoOn(s, c) })
	if err != nil {
		return err
	}
	was := s.open.Swap(&open)
	switch {
	case was == nil && len(open) > 0:
		h.log.Warn("connections that were open before capture go on outside the mesh", "workload", h.workload.Key(),
			"connections", len(open), "among them", strings.Join(shown(open), ", "))
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

// outside is what of the workload's traffic passes the mesh by; nil for nothing.
func (h *home) outside() *agentapi.Outside {
	s := h.stay.Load()
	if s == nil || h.rules == nil {
		return nil
	}
	out := agentapi.Outside{Workload: h.workload.Key(), Ports: h.rules.ExcludeInboundPorts}
	if open := s.open.Load(); open != nil {
		out.Count, out.Connections = len(*open), shown(*open)
	}
	if out.Count+len(out.Ports) == 0 {
		return nil
	}
	return &out
}

func shown(open []capture.Connection) []string {
	var out []string
	for _, c := range open[:min(len(open), mostShown)] {
		out = append(out, c.String())
	}
	return out
}
