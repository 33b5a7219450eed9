package relational

import (
	"context"
	"database/sql"
	"io/fs"

	"isthmus.dev/isthmus/internal/state"
)

// Engine is an open database.
type Engine interface {
	// Pools returns the connection pools for reading and writing. The one for writing has one connection.
	Pools() (read, write *sql.DB)
	// Statements contains the engine's own *.sql, which replace those of the same name in queries/.
	Statements() fs.FS
	// Begin starts a writing transaction. Until it ends, no other one runs, in any process. The id is for Committed.
	Begin(ctx context.Context) (t *sql.Tx, id string, err error)
	// Announce is called at the end of a transaction that changed something that can be watched.
	Announce(ctx context.Context, t *sql.Tx, changes []state.Change) error
	// Committed reports, after the connection was lost, whether a transaction was committed.
	Committed(ctx context.Context, id string) (bool, error)
	// Bounded returns a context that ends when the database has not answered for so long that it counts as unavailable.
	Bounded(context.Context) (context.Context, context.CancelFunc)
	// Judge classifies an error of a statement.
	Judge(err error) Fault
	// Taken reports whether err is a violated uniqueness constraint.
	Taken(err error) bool
	// Explain adds the operation, the database and a remedy to err.
	Explain(operation string, err error) error
	Place() string
	// Shared reports whether other processes may use the database.
	Shared() bool
	Check(ctx context.Context) error
	Close() error
}

// Fault is the effect of an error on its transaction.
type Fault int

const (
	// Spoilt: the transaction is rolled back.
	Spoilt Fault = iota
	// Alone: only the statement failed. Earlier statements of the transaction can be kept.
	Alone
	// Passing: the transaction is rolled back and may be retried. The connection was lost, or there was a conflict with
	// another transaction.
	Passing
)
