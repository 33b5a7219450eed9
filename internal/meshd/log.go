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

// Limits of the log. Nodes, peers and strangers can cause lines, partly with their own text; neither many lines nor
// long ones may fill the disk. Events, findings and metrics still contain what the log omits.
const (
	logBurst   = 1_000 // lines of one message about one subject
	logRate    = rate.Limit(2)
	maxLogText = 4 << 10
	maxLogged  = 10_000 // messages and subjects that are distinguished
)

// subjects are attributes whose values administrators choose. Lines about one value do not crowd out those about
// another.
var subjects = []string{"node", "proxy", "peer", "code", "caller"}

// boundedLog limits a log. Messages are constant, so each has its own rate.
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

// count counts an omitted line, or returns how many were omitted before a written one.
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

// bounded redacts tokens from an attribute and shortens it, unless its text is our own.
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

// WithAttrs implements slog.Handler.
func (l boundedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return boundedLog{l.Handler.WithAttrs(attrs), l.counts}
}

// WithGroup implements slog.Handler.
func (l boundedLog) WithGroup(name string) slog.Handler {
	return boundedLog{l.Handler.WithGroup(name), l.counts}
}
