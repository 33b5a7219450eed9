package postgres_test

import (
	"testing"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/state/relational"
	"isthmus.dev/isthmus/internal/state/statetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t *testing.T) state.Store { return open(t, pgtest.Shared(t).Database(t)) })
}

func TestSharedContract(t *testing.T) {
	t.Parallel()
	statetest.RunShared(t, func(t *testing.T) func(t *testing.T) state.Store {
		cfg := pgtest.Shared(t).Database(t)
		return func(t *testing.T) state.Store { return open(t, cfg) }
	})
}

func open(t *testing.T, cfg postgres.Config) *relational.DB {
	t.Helper()
	d, err := postgres.Open(t.Context(), cfg)
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
