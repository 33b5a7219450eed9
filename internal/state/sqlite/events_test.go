package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

// The tables themselves refuse to lose an event, and a file from which one was taken all the same is not opened.
func TestEventsCannotBeUnwritten(t *testing.T) {
	record := func(d *relational.DB, n int) {
		for i := range n {
			e := state.Event{
				Time: noon, Actor: "administrator alice", Action: "token create", Object: fmt.Sprint("node n", i),
				Outcome: state.OK,
			}
			if err := d.Record(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	unguarded := []string{
		"DROP TRIGGER events_stay", "DROP TRIGGER events_stay_as_they_are", "UPDATE schema_sum SET sum = 0",
	}
	for _, test := range []struct {
		statement string
		refused   string // by the table
		damage    string // found when it is opened, once the table was made to do it
	}{
		{
			"DELETE FROM events WHERE seq = 2", "an event is kept for 400 days",
			"events are missing or not as they were written, at 1 places",
		},
		{
			"DELETE FROM events WHERE seq = 4", "an event is kept for 400 days",
			"events are missing or not as they were written, at 1 places",
		},
		{
			"UPDATE events SET actor = 'administrator bob' WHERE seq = 3", "an event is never changed",
			"events are missing or not as they were written, at 1 places",
		},
		{
			"UPDATE events SET outcome = 'refused' WHERE seq = 1", "an event is never changed",
			"events are missing or not as they were written, at 1 places",
		},
	} {
		path := edited(t)
		d, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		record(d, 4)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := edit(t, path, test.statement); err == nil || !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v", test.statement, err)
		}
		if err := edit(t, path, append(unguarded, test.statement)...); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, state.ErrDamaged) ||
			!strings.Contains(err.Error(), test.damage) {
			t.Errorf("%s, opened: %v", test.statement, err)
		}
	}
}
