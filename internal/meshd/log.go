package meshd

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/rates"
)

// Bounds on the log. Nodes, peers and strangers can have lines written, in part in their own words: neither a flood of
// lines nor a long one may fill the disk. What is no line of the log is still among the events, findings and metrics.
const (
	logBurst   = 1_000 // lines of one message about one subject
	logRate    = rate.Limit(2)
	maxLogText = 4 << 10
	maxLogged  = 10_000 // messages and subjects that are told apart
)

// subjects are attributes whose values administrators have chosen: lines about one do not crowd out those about
// another.
var subjects = []string{"node", "proxy", "peer", "code", "caller"}

// boundedLog is a log within bounds. Messages are constant, so each has a rate of its own.
type boundedLog struct {
	slog.Handler
	counts *logCounts
}

type logCounts struct {
	rates *rates.Rates[logKey]

	mu   sync.Mutex // guards left
	left map[logKey]int
}

type logKey struct{ message, subject string }

func newBoundedLog(to slog.Handler) boundedLog {
	return boundedLog{to, &logCounts{rates: rates.New[logKey](maxLogged), left: map[logKey]int{}}}
}

// Handle writes a line, or counts it for the next one of its kind.
func (l boundedLog) Handle(ctx context.Context, line slog.Record) error {
	key := logKey{message: line.Message}
	out := slog.NewRecord(line.Time, line.Level, line.Message, line.PC)
	line.Attrs(func(a slog.Attr) bool {
		if key.subject == "" && slices.Contains(subjects, a.Key) {
			key.subject = model.NodeOfProxy(a.Value.String())
		}
		out.AddAttrs(bounded(a))
		return true
	})
	ok := l.counts.rates.Allow(key, logRate, logBurst, line.Time)
	if left := l.counts.count(key, ok); ok && left > 0 {
		out.AddAttrs(slog.Int("leftOut", left))
	}
	if !ok {
		return nil
	}
	return l.Handler.Handle(ctx, out)
}

// count counts a line that is left out, and says how many were before one that is not.
func (c *logCounts) count(key logKey, written bool) (left int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left = c.left[key]
	switch {
	case written:
		delete(c.left, key)
	case left > 0 || len(c.left) < maxLogged:
		c.left[key]++
	}
	return left
}

// bounded is an attribute whose text holds no token, and is not too long unless we wrote it ourselves.
func bounded(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	if k := v.Kind(); a.Key == "stack" || k != slog.KindString && k != slog.KindAny {
		return a
	}
	text := v.String()
	if safe := finding.WithoutTokens(text[:min(len(text), maxLogText)]); safe != text {
		return slog.String(a.Key, strings.ToValidUTF8(safe, "")+strings.Repeat("…",
			min(1, max(0, len(text)-maxLogText))))
	}
	return a
}

// WithAttrs is one of slog.Handler's.
func (l boundedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return boundedLog{l.Handler.WithAttrs(attrs), l.counts}
}

// WithGroup is one of slog.Handler's.
func (l boundedLog) WithGroup(name string) slog.Handler {
	return boundedLog{l.Handler.WithGroup(name), l.counts}
}
