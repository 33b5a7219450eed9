package postgres_test

import (
	"database/sql"
	"testing"

	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/state/postgres"
)

// A server that is told to forget what it acknowledges, before a session begins or while it lasts, keeps what a control
// plane writes all the same. Settings that keep it stay as they are.
func TestSessionsKeepWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	cfg := server.Database(t)
	set := func(value string) { // for sessions that begin from now on
		server.Admin(t, cfg.Database, "ALTER DATABASE "+cfg.Database+" SET synchronous_commit = "+value)
	}
	set("remote_apply")
	e, err := postgres.OpenEngine(t.Context(), cfg)
	must(t, err)
	defer e.Close()
	read, write := e.Pools()
	says := func(when, want string) {
		t.Helper()
		for name, pool := range map[string]*sql.DB{"reads": read, "writes": write} {
			var got string
			must(t, pool.QueryRowContext(t.Context(), "SHOW synchronous_commit").Scan(&got))
			if got != want {
				t.Errorf("%s, the session that %s has synchronous_commit = %s, want %s", when, name, got, want)
			}
		}
	}
	renew := func() {
		server.Admin(t, cfg.Database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "+
			"WHERE datname = $1 AND pid <> pg_backend_pid()", cfg.Database)
		for _, pool := range []*sql.DB{read, write} {
			waitFor(t, "new session", func() bool { return pool.PingContext(t.Context()) == nil })
		}
	}
	says("begun under remote_apply", "remote_apply")
	set("off")
	renew()
	says("begun under off", "on")

	set("DEFAULT")
	renew()
	says("begun under the server's own", "on")
	observer := server.Connect(t, cfg.Database)
	server.Admin(t, cfg.Database, "ALTER SYSTEM SET synchronous_commit = off")
	server.Admin(t, cfg.Database, "SELECT pg_reload_conf()")
	waitFor(t, "server that has read its settings", func() bool {
		var now string
		must(t, observer.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&now))
		return now == "off"
	})
	says("when the server's own became off", "on")
}
