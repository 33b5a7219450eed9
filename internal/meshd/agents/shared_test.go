package agents

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// shareable is a state to which agents' reports are written, unless it is away.
type shareable struct {
	State
	away    error
	written []string
}

func (s *shareable) PutAgent(_ context.Context, a state.Agent) error {
	if s.away == nil {
		s.written = append(s.written, string(a.Report))
	}
	return s.away
}

// quiet is a store without reports.
type quiet struct{ Store }

func (quiet) Report(string) snapshot.Report { return snapshot.Report{} }

// A database that is away for a while does not end the conversations of agents whose counters change: their nodes would
// be taken for silent, and what they serve out of use.
func TestConversationsOutlastADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	db := &shareable{away: errors.New("no route to the database")}
	a := &Agents{Config: Config{
		State: db, Store: quiet{}, Holder: "one", Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}, remote: map[string]remote{}}
	ag := &agent{name: "n1", report: agentapi.Report{Version: "1"}}
	if err := a.share(t.Context(), ag); status.Code(err) != codes.Unavailable {
		t.Errorf("an agent of which the others know nothing: %v", err)
	}
	db.away = nil
	if err := a.share(t.Context(), ag); err != nil {
		t.Fatal(err)
	}
	db.away = errors.New("no route to the database")
	ag.report.Version = "2"
	if err := a.share(t.Context(), ag); err != nil {
		t.Errorf("the conversation ends: %v", err)
	}
	db.away = nil
	if err := a.share(t.Context(), ag); err != nil || len(db.written) != 2 {
		t.Errorf("%d reports are written, %v", len(db.written), err)
	}
}
