package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Each mesh reports to its peers, on every change, which offered services have no ready endpoint, so that a peer stops
// calling them before a user notices. A report contains nothing but ready or not. The header headerReadiness shows
// whether a peer lost it; then it is sent again.

const (
	// MaxReadinessBytes is enough to name every service of the largest catalogue.
	MaxReadinessBytes = 192 << 10
	// tellEvery is the pause between two reports to one peer. Changes in between are combined.
	tellEvery = 500 * time.Millisecond
	// tellRetry is the first pause after a failed report.
	tellRetry = 250 * time.Millisecond
)

// readinessPace limits how many of a peer's reports are accepted.
var readinessPace = pace{2, 10}

type readinessJSON struct {
	Sequence uint64                 `json:"sequence"`
	Unready  []snapshot.OfferedName `json:"unready"`
}

// ParseReadiness parses a peer's report on the services that it offers.
func ParseReadiness(raw []byte, now time.Time) (*snapshot.Readiness, error) {
	if len(raw) > MaxReadinessBytes {
		return nil, fmt.Errorf("the report is larger than %d bytes", MaxReadinessBytes)
	}
	if n := bytes.Count(raw, []byte("{")); n > peerrules.MaxOffered+1 { // before anything is decoded
		return nil, fmt.Errorf("the report names more than %d services", peerrules.MaxOffered)
	}
	var doc readinessJSON
	if err := strictJSON(raw, &doc); err != nil {
		return nil, fmt.Errorf("the report is not what it should be: %w", err)
	}
	switch {
	case doc.Sequence == 0:
		return nil, errors.New("the report has no sequence number")
	case inFuture(doc.Sequence, now):
		return nil, errAhead(doc.Sequence, now)
	case doc.Unready == nil:
		return nil, errors.New("the report has no list of services")
	}
	r := &snapshot.Readiness{Sequence: doc.Sequence, Unready: make([]snapshot.OfferedName, 0, len(doc.Unready))}
	for i, u := range doc.Unready {
		if !isLabel(u.Namespace) || !isLabel(u.Name) {
			return nil, fmt.Errorf("service %d of the report: its name or namespace is no DNS label", i+1)
		}
		r.Unready = append(r.Unready, u)
	}
	slices.SortFunc(r.Unready, snapshot.OfferedName.Compare)
	r.Unready = slices.Compact(r.Unready)
	return r, nil
}

// takeReadiness handles a peer's readiness report.
func (s *Service) takeReadiness(w http.ResponseWriter, r *http.Request, name string) error {
	if !s.limits.allowAt(readinessPace, "readiness/"+name) {
		return status{
			http.StatusTooManyRequests,
			refusal{Code: "TooMany", Message: "too many reports of readiness: try again later"},
		}
	}
	raw, err := readBody(r)
	if err != nil {
		return err
	}
	report, err := ParseReadiness(raw, s.Now().UTC())
	if err != nil {
		return status{http.StatusBadRequest, refusal{Code: "BadReadiness", Message: printable(err.Error(), 400)}}
	}
	s.hearing.Lock()
	defer s.hearing.Unlock()
	if s.suspended(name) {
		return status{http.StatusForbidden, notAPeer}
	}
	p, err := s.peer(r.Context(), name)
	if err != nil {
		return err
	}
	held := readinessNumber(p.state)
	if report.Sequence <= held && !inFuture(held, s.Now().UTC()) {
		return staleReport(held)
	}
	err = s.Store.SetPeerReadiness(r.Context(), name, *report, held)
	switch {
	case errors.Is(err, state.ErrRevoked):
		return status{http.StatusForbidden, notAPeer}
	case errors.Is(err, state.ErrSuperseded): // another control plane of this mesh is storing one
		return status{
			http.StatusServiceUnavailable,
			refusal{Code: "Busy", Message: "another report came at the same time: try again"},
		}
	case err != nil:
		return fmt.Errorf("keep readiness: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func staleReport(held uint64) error {
	return status{http.StatusConflict, refusal{
		Code: notNewer, Message: "a report with this or a later sequence was taken before", Sequence: held,
	}}
}

// readinessOf returns the number of a peer's newest report, or 0.
func (s *Service) readinessOf(name string) uint64 {
	return readinessNumber(s.Snapshot().Peers[name])
}

func readinessNumber(p snapshot.PeerState) uint64 {
	if p.Readiness == nil {
		return 0
	}
	return p.Readiness.Sequence
}

// readinessDelivery is the progress of our reports at one peer.
type readinessDelivery struct {
	sequence uint64 // newest report that the peer accepted; 0 for none
	unready  []snapshot.OfferedName
	failures int
	due      time.Time // not before this time
}

// reportReadiness reports readiness to one peer until ctx is done.
func (s *Service) reportReadiness(ctx context.Context, name string, wake <-chan struct{}) {
	again := time.NewTimer(0)
	defer again.Stop()
	var told readinessDelivery
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-again.C:
		}
		if wait := s.reportIfDue(ctx, name, &told); wait > 0 {
			again.Reset(wait)
		}
	}
}

// reportIfDue sends a peer the changes that it does not know yet. It returns the time until the next look, or 0 if
// there is nothing left to send.
func (s *Service) reportIfDue(ctx context.Context, name string, t *readinessDelivery) (wait time.Duration) {
	p, unready := s.meshPeer(name), s.Unready(name)
	h := s.Health(name)
	lost := h.ReadinessHeard.After(h.ReadinessTold) && h.ReadinessHeld != t.sequence
	switch {
	case p == nil, h.RefreshOK.IsZero(), h.RefreshError != "", s.suspended(name):
		return 0 // a successful refresh wakes this
	case t.sequence != 0 && !lost && slices.Equal(t.unready, unready):
		return 0
	case s.Now().Before(t.due):
		return max(t.due.Sub(s.Now()), time.Millisecond)
	}
	sequence, err := s.sendReport(ctx, p, unready)
	if ctx.Err() != nil {
		return 0
	}
	now := s.Now()
	s.recordReport(name, err)
	if err != nil {
		t.failures++
		t.due = now.Add(jitter(backoff(t.failures, tellRetry, s.MaxRefresh)))
		return max(t.due.Sub(now), time.Millisecond)
	}
	*t = readinessDelivery{sequence: sequence, unready: unready, due: now.Add(tellEvery)}
	return tellEvery // for changes in the meantime
}

// sendReport sends one report, numbered by the time or by the successor of the number that the peer knows.
func (s *Service) sendReport(
	ctx context.Context, p *v1alpha1.MeshPeer, unready []snapshot.OfferedName,
) (uint64, error) {
	sequence := uint64(s.Now().UnixMicro())
	err := s.sendReportAs(ctx, p, sequence, unready)
	var r remoteRefusal
	if errors.As(err, &r) && r.status == http.StatusConflict && r.Sequence >= sequence {
		sequence = r.Sequence + 1
		err = s.sendReportAs(ctx, p, sequence, unready)
	}
	return sequence, err
}

func (s *Service) sendReportAs(
	ctx context.Context, p *v1alpha1.MeshPeer, sequence uint64, unready []snapshot.OfferedName,
) error {
	if unready == nil {
		unready = []snapshot.OfferedName{}
	}
	doc, err := json.Marshal(snapshot.Readiness{Sequence: sequence, Unready: unready})
	if err != nil {
		return fmt.Errorf("write readiness: %w", err)
	}
	if _, err := s.askPeer(ctx, p, exchange{
		method: http.MethodPost, path: PathReadiness, body: doc, limit: 4 << 10,
	}); err != nil {
		return fmt.Errorf("tell readiness: %w", err)
	}
	return nil
}

// recordReport records the outcome of one report.
func (s *Service) recordReport(name string, err error) {
	first, now := false, s.Now()
	s.updateHealth(name, func(h *Health) {
		if err != nil {
			first = h.ReadinessError == ""
			h.ReadinessError = err.Error()
			return
		}
		h.ReadinessError, h.ReadinessTold = "", now
	})
	if first {
		s.Log.Warn("readiness of exports not told", "peer", name, "error", err)
	}
}

// recordHeldReport records which report the peer says it has.
func (s *Service) recordHeldReport(name string, header http.Header) {
	held, err := strconv.ParseUint(header.Get(headerReadiness), 10, 64)
	if err != nil {
		held = 0
	}
	now := s.Now()
	s.updateHealth(name, func(h *Health) { h.ReadinessHeld, h.ReadinessHeard = held, now })
}
