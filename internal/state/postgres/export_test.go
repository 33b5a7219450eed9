package postgres

import (
	"context"

	"isthmus.dev/isthmus/internal/state/relational"
)

// OpenEngine opens a database without a store around it.
func OpenEngine(ctx context.Context, cfg Config) (relational.Engine, error) {
	return open(ctx, cfg, &relational.Watchers{})
}
