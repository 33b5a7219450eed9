package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

// edited is a closed state file on which raw statements were run behind the package's back.
func edited(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	d, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, 0, 2)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := edit(t, path, statements...); err != nil {
		t.Fatal(err)
	}
	return path
}

// edit runs raw statements up to the first that fails.
func edit(t *testing.T, path string, statements ...string) error {
	t.Helper()
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, s := range statements {
		if _, err := raw.ExecContext(t.Context(), s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

var newerSchema = regexp.MustCompile(`it has schema version 999, this program knows \d+: run the newer isthmus that wrote it, or restore the backup`)

func TestNewerSchemaIsRefused(t *testing.T) {
	path := edited(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	_, err := sqlite.Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), path) || !newerSchema.MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestChangedSchemaIsDamage(t *testing.T) {
	path := edited(t, "DROP INDEX certs_not_after")
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, state.ErrDamaged) ||
		!strings.Contains(err.Error(), "its schema is not as it was written") {
		t.Errorf("got %v", err)
	}
}

// A start that was stopped between changing the schema and writing its checksum.
func TestInterruptedMigrationIsFinished(t *testing.T) {
	path := edited(t, "UPDATE schema_sum SET sum = 0")
	d, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var sum int64
	if err := raw.QueryRowContext(t.Context(), "SELECT sum FROM schema_sum").Scan(&sum); err != nil || sum == 0 {
		t.Errorf("checksum %d, %v", sum, err)
	}
}
