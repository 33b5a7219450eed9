package relational

import "context"

// Together carries out changes as the writer does with those that come while it is busy, and says how each went.
func (d *DB) Together(changes ...func(ctx context.Context, exec func(name string, args ...any) error) error) []error {
	var writes []*write
	for _, change := range changes {
		writes = append(writes, &write{
			name: "change", done: make(chan error, 1),
			do: func(ctx context.Context, t *tx) error {
				return change(ctx, func(name string, args ...any) error {
					_, err := t.exec(ctx, name, args...)
					return err
				})
			},
		})
	}
	d.carryOut(writes)
	var errs []error
	for _, one := range writes {
		errs = append(errs, <-one.done)
	}
	return errs
}
