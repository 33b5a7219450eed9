package relational

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/internal/state"
)

//go:embed queries/*.sql
var shared embed.FS

// queryHead matches the header of a statement: whether it reads or writes, its name and, if its effect can be watched,
// the topic and the argument that is the key.
var queryHead = regexp.MustCompile(`(?m)^-- (read|write): ([a-z-]+)(?: \(changes ([a-z]+)(?: \$(\d))?\))?$`)

// query is one statement.
type query struct {
	name, text string
	writes     bool
	changes    state.Topic // empty: not watched
	key        int         // number of the argument, from 1; 0: none
}

// queries parses all statements in a folder.
func queries(dir fs.FS) ([]query, error) {
	files, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, err
	}
	var all []query
	for _, f := range files {
		b, err := fs.ReadFile(dir, f)
		if err != nil {
			return nil, err
		}
		text := string(b)
		heads := queryHead.FindAllStringSubmatchIndex(text, -1)
		for i, h := range heads {
			end := len(text)
			if i+1 < len(heads) {
				end = heads[i+1][0]
			}
			// without what follows: a driver may parse it on each use
			statement, _, _ := strings.Cut(text[h[1]:end], ";\n")
			q := query{name: text[h[4]:h[5]], text: statement, writes: text[h[2]:h[3]] == "write"}
			if h[6] >= 0 {
				if q.changes = state.Topic(text[h[6]:h[7]]); !slices.Contains(state.Topics, q.changes) {
					return nil, fmt.Errorf("statement %s changes %q, which is no topic", q.name, q.changes)
				}
			}
			if h[8] >= 0 {
				if q.key, err = strconv.Atoi(text[h[8]:h[9]]); err != nil {
					return nil, err
				}
			}
			all = append(all, q)
		}
	}
	return all, nil
}

// prepare prepares every statement, so that one that does not fit the schema fails when the database is opened.
func (d *DB) prepare(ctx context.Context) error {
	dir, err := fs.Sub(shared, "queries")
	if err != nil {
		return err
	}
	all := map[string]query{}
	for _, from := range []fs.FS{dir, d.engine.Statements()} {
		list, err := queries(from)
		if err != nil {
			return err
		}
		for _, q := range list {
			all[q.name] = q
		}
	}
	read, write := d.engine.Pools()
	for _, q := range all {
		pool := read
		if q.writes {
			pool = write
		}
		s, err := pool.PrepareContext(ctx, q.text)
		if err != nil {
			return fmt.Errorf("prepare %s: %w", q.name, err)
		}
		d.stmts[q.name] = &statement{s, q}
	}
	return nil
}
