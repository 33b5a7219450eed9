package main

import (
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"testing"

	"isthmus.dev/isthmus/internal/config"
)

// How the control plane's memory is collected can be said by the environment.
func TestGarbageCollection(t *testing.T) {
	for _, tt := range []struct {
		gogc string
		want int
	}{{"", 50}, {"77", 100}} { // the runtime has read GOGC long before
		t.Setenv("GOGC", tt.gogc)
		before := debug.SetGCPercent(100)
		cfg := config.Control{StateFile: filepath.Join(t.TempDir(), "none", "state.db")}
		if err := runControl(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("it ran without a folder for its state")
		}
		if got := debug.SetGCPercent(before); got != tt.want {
			t.Errorf("with GOGC=%q: %d, want %d", tt.gogc, got, tt.want)
		}
	}
}
