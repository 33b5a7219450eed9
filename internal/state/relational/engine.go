package relational

import (
	"context"
	"database/sql"
	"io/fs"

	"isthmus.dev/isthmus/internal/state"
)

// Engine is one open database.
type Engine interface {
	// Pools are where statements run that read and that write. Write has one connection.
	Pools() (read, write *sql.DB)
	// Statements has *.sql of the engine's own, in place of those of the same name in queries/.
	Statements() fs.FS
	// Begin begins a transaction that writes. Until it ends no other one does, of another process neither. The id is
	// what Committed may be asked about.
	Begin(ctx context.Context) (t *sql.Tx, id string, err error)
	// Announce is called as the last thing in a transaction that changed something that can be watched.
	Announce(ctx context.Context, t *sql.Tx, changes []state.Change) error
	// Committed says, after the connection was lost, whether a transaction had been committed.
	Committed(ctx context.Context, id string) (bool, error)
	// Bounded ends when the database has not answered for so long that it is taken to be away.
	Bounded(context.Context) (context.Context, context.CancelFunc)
	// Judge says what an error of a statement means.
	Judge(err error) Fault
	// Taken says whether err is that something is there already that may be there once.
	Taken(err error) bool
	// Explain names the operation and the database in err, and what to do about it.
	Explain(operation string, err error) error
	Place() string
	// Shared says whether other processes may use the database.
	Shared() bool
	Check(ctx context.Context) error
	Close() error
}

// Fault is what an error means for the transaction in which it came up.
type Fault int

const (
	// Spoilt transactions are undone as a whole.
	Spoilt Fault = iota
	// Alone is a fault of one statement: what came before it in the transaction can be kept.
	Alone
	// Passing faults undo the transaction, which may be tried again: the connection was lost, or another transaction
	// was in the way.
	Passing
)
