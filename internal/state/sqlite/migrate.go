package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func migrations(p *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	return migrationsOf(p, dir)
}

func migrationsOf(p *sql.DB, dir fs.FS) (*goose.Provider, error) {
	return goose.NewProvider(database.DialectSQLite3, p, dir, goose.WithDisableGlobalRegistry(true))
}

// migrate migrates the schema and stores its checksum.
func migrate(ctx context.Context, p *sql.DB) error {
	g, err := migrations(p)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	return migrateBy(ctx, p, g)
}

func migrateBy(ctx context.Context, p *sql.DB, g *goose.Provider) error {
	have, want, err := g.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > want {
		return fmt.Errorf("it has schema version %d, this program knows %d: run the newer isthmus that wrote it, or restore the backup made before that one ran", have, want)
	}
	if have > 0 {
		if open, err := midway(ctx, p); err != nil || have == want && !open {
			return err
		}
		// 0 marks a migration in progress, in case of a crash between the migration and its checksum.
		if _, err := p.ExecContext(ctx, "UPDATE schema_sum SET sum = 0"); err != nil {
			return err
		}
	}
	if _, err := g.Up(ctx); err != nil {
		return fmt.Errorf("migrate from schema version %d to %d: %w", have, want, err)
	}
	return writeSchemaSum(ctx, p)
}

// midway reports whether an earlier start was interrupted during a migration.
func midway(ctx context.Context, p *sql.DB) (bool, error) {
	var sum int64
	err := p.QueryRowContext(ctx, "SELECT sum FROM schema_sum").Scan(&sum)
	return sum == 0, err
}

func writeSchemaSum(ctx context.Context, p *sql.DB) error {
	sum, err := schemaSum(ctx, p)
	if err != nil {
		return err
	}
	_,
		err = p.ExecContext(ctx,
		"INSERT INTO schema_sum (one, sum) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET sum = excluded.sum", sum)
	return err
}

// schemaSum returns the checksum of the schema's text.
func schemaSum(ctx context.Context, p *sql.DB) (int64, error) {
	rows, err := p.QueryContext(ctx, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var s summer
	for rows.Next() {
		var kind, name, table string
		var text sql.NullString
		if err := rows.Scan(&kind, &name, &table, &text); err != nil {
			return 0, err
		}
		s.add(kind, name, table, text.String)
	}
	return s.sum(), errors.Join(rows.Err(), rows.Close())
}
