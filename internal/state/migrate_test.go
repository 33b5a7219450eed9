package state_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/state"
)

// edited is a closed state file on which raw statements were run behind the package's back.
func edited(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	d, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, 0, 2)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := raw.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := edited(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	_, err := state.Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "schema version 999, this program knows 2: run the newer isthmus that wrote it") {
		t.Errorf("got %v", err)
	}
}

func TestChangedSchemaIsDamage(t *testing.T) {
	path := edited(t, "DROP INDEX certs_not_after")
	if _, err := state.Open(t.Context(), path); !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), "its schema is not as it was written") {
		t.Errorf("got %v", err)
	}
}

// A start that was stopped between changing the schema and writing its checksum.
func TestInterruptedMigrationIsFinished(t *testing.T) {
	path := edited(t, "UPDATE schema_sum SET sum = 0")
	d, err := state.Open(t.Context(), path)
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

// A file of the first version, with certificates in it, opened by this one.
func TestFirstVersionIsBroughtUpToDate(t *testing.T) {
	path := edited(t,
		"DROP TABLE rotation", "DROP TABLE certs", `CREATE TABLE certs (
		  fingerprint BLOB PRIMARY KEY, serial BLOB NOT NULL, spiffe_id TEXT NOT NULL, node TEXT NOT NULL, not_before INTEGER NOT NULL,
		  not_after INTEGER NOT NULL, sum INTEGER NOT NULL AS (isthmus_sum(fingerprint, serial, spiffe_id, node, not_before, not_after)) STORED
		) STRICT`, "CREATE INDEX certs_not_after ON certs (not_after)",
		"INSERT INTO certs (fingerprint, serial, spiffe_id, node, not_before, not_after) VALUES (x'aa', x'01', 'spiffe://cards.example/ns/a/sa/b', 'n1', 1, 2000000)",
		"DELETE FROM goose_db_version WHERE version_id = 2", "UPDATE schema_sum SET sum = 0")
	d, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := d.Cert(t.Context(), "aa")
	if err != nil || c.Root != "" || c.Node != "n1" || c.Serial != "01" {
		t.Errorf("got %+v, %v", c, err)
	}
}
