package state

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

//go:embed queries/*.sql
var queryFiles embed.FS

var queryHead = regexp.MustCompile(`(?m)^-- (read|write): ([a-z-]+)$`)

// query is one statement of queries/.
type query struct {
	name, text string
	writes     bool
}

// queries reads all statements of queries/.
func queries() ([]query, error) {
	files, err := fs.Glob(queryFiles, "queries/*.sql")
	if err != nil {
		return nil, err
	}
	var all []query
	for _, f := range files {
		b, err := queryFiles.ReadFile(f)
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
			statement, _, _ := strings.Cut(text[h[1]:end], ";\n") // alone: the driver reads anything behind it anew at each use
			all = append(all, query{name: text[h[4]:h[5]], text: statement, writes: text[h[2]:h[3]] == "write"})
		}
	}
	return all, nil
}

// prepare readies every statement, so that one that does not fit the schema fails when the file is opened.
func (d *DB) prepare(ctx context.Context) error {
	all, err := queries()
	if err != nil {
		return err
	}
	for _, q := range all {
		pool := d.read
		if q.writes {
			pool = d.write
		}
		s, err := pool.PrepareContext(ctx, q.text)
		if err != nil {
			return fmt.Errorf("prepare %s: %w", q.name, err)
		}
		d.stmts[q.name] = s
	}
	return nil
}
