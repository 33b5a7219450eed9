package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"

	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/meshd"
)

// gcPercent makes the control plane collect garbage when its heap has grown by half. Nearly all of it is long-lived:
// objects, what they mean, connections. Go's default would let the heap double. The price is some CPU while much
// changes (docs/performance.md).
const gcPercent = 50

// runControl runs the control plane. The environment variable GOGC overrides gcPercent.
func runControl(ctx context.Context, cfg config.Control, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return meshd.Run(ctx, cfg, log)
}
