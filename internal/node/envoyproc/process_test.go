package envoyproc

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// A crash is a fault of the process itself, and not that somebody ended it.
func TestCrash(t *testing.T) {
	for script, want := range map[string]bool{
		"kill -ABRT $$": true,
		"kill -SEGV $$": true,
		"kill -BUS $$":  true,
		"kill -KILL $$": false,
		"kill -TERM $$": false,
		"exit 1":        false,
		"exit 134":      false,
		"exit 0":        false,
	} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err := (&process{child: cmd}).how()
		if errors.Is(err, errCrash) != want {
			t.Errorf("%s: %v", script, err)
		}
	}
	if err := (&process{}).how(); !errors.Is(err, errCrash) || !strings.Contains(err.Error(), "or was ended") {
		t.Errorf("of an Envoy that an earlier agent started: %v", err)
	}
}
