package state

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

// A file of the first version, with certificates in it, opened by this one.
func TestFirstVersionIsBroughtUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := registerFunctions(); err != nil {
		t.Fatal(err)
	}
	raw, err := pool(path, 1, fmt.Sprintf("_pragma=application_id(%d)", applicationID))
	if err != nil {
		t.Fatal(err)
	}
	begin(t, raw)
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := d.Cert(t.Context(), "aa")
	if err != nil || c.Root != "" || c.Node != "n1" || c.Serial != "01" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// begin writes the first version's schema, and a certificate.
func begin(t *testing.T, raw *sql.DB) {
	t.Helper()
	g, err := migrations(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := writeSchemaSum(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.ExecContext(t.Context(), `INSERT INTO certs (fingerprint, serial, spiffe_id, node, not_before, not_after)
		VALUES (x'aa', x'01', 'spiffe://cards.example/ns/a/sa/b', 'n1', 1, 2000000)`); err != nil {
		t.Fatal(err)
	}
}
