package sqlite_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
)

func TestContract(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Store { return open(t, filepath.Join(statetest.Dir(t), "state.db")) })
}

func open(t *testing.T, path string) *relational.DB {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func sameAddr(a, b netip.Addr) bool { return a == b }
