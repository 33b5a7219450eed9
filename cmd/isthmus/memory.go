package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"

	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/meshd"
)

// gcPercent has the control plane's memory collected whenever it has grown by half. Nearly all of it lives long:
// objects, what they mean, connections. Go's default lets as much again accumulate before it looks. The price is some
// CPU while much changes (docs/performance.md).
const gcPercent = 50

// runControl runs the control plane. GOGC wins over gcPercent.
func runControl(ctx context.Context, cfg config.Control, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return meshd.Run(ctx, cfg, log)
}
