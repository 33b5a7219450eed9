package federation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Paths of the peering server.
const (
	PathBundle    = "/v1/bundle"
	PathCatalogue = "/v1/catalogue"
	PathReadiness = "/v1/readiness"
	PathPeering   = "/v1/peering"
)

// peerHandler answers control planes: those of peers, and of who was invited.
func (s *Service) peerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathBundle, s.forPeer(s.serveBundle))
	mux.HandleFunc("POST "+PathBundle, s.forPeer(s.takeNotice))
	mux.HandleFunc("POST "+PathCatalogue, s.forPeer(s.takeCatalogue))
	mux.HandleFunc("POST "+PathReadiness, s.forPeer(s.takeReadiness))
	mux.HandleFunc("POST "+PathPeering, s.forInvite)
	return s.guarded(mux)
}

// probeHandler answers peers' gateways, whose names our own gateway says: what it says there is believed for nothing
// else.
func (s *Service) probeHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+agentapi.ProbePath, s.forProbe)
	return s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.fromGateway(r.Context(), *r.TLS); err != nil { // it may not be one any more
			answer(w, http.StatusForbidden, refusal{Code: "NotAGateway", Message: err.Error()})
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// guarded answers only so many requests at a time.
func (s *Service) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.limits.slots <- struct{}{}:
			defer func() { <-s.limits.slots }()
		default:
			answer(w, http.StatusServiceUnavailable, refusal{Code: "Busy", Message: "too many requests at once: try again"})
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.ReadTimeout)) // not every writer of tests can
		r.Body = http.MaxBytesReader(w, r.Body, max(MaxPeeringBytes, MaxCatalogueBytes))
		next.ServeHTTP(w, r)
	})
}

type peerHandler func(w http.ResponseWriter, r *http.Request, name string) error

// forPeer is for what the control planes of peers ask. Who is none, or one with which nothing may pass, learns no more
// than that.
func (s *Service) forPeer(h peerHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, err := s.peerOf(r.TLS)
		if err != nil {
			s.recordStranger(r.Context(), state.Event{
				From: host(r.RemoteAddr), Action: "peer ask", Object: r.TLS.ServerName, Detail: err.Error(),
			})
			answer(w, http.StatusForbidden, notAPeer)
			return
		}
		s.within(w, r, usualPace, "peer", name, h)
	}
}

// forProbe is for what peers' gateways ask.
func (s *Service) forProbe(w http.ResponseWriter, r *http.Request) {
	names := r.Header.Values(HeaderPeer)
	if len(names) != 1 {
		answer(w, http.StatusBadRequest, refusal{Code: "NoPeer", Message: "the gateway did not say for whom it asks"})
		return
	}
	if !peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[names[0]].Control {
		answer(w, http.StatusForbidden, notAPeer)
		return
	}
	s.within(w, r, probePace, "probe", names[0], s.answerProbe)
}

// within holds a peer to its pace and to its share of what is answered at a time.
func (s *Service) within(w http.ResponseWriter, r *http.Request, p pace, kind, name string, h peerHandler) {
	if !s.limits.allowAt(p, kind+"/"+name) {
		answer(w, http.StatusTooManyRequests, refusal{Code: "TooMany", Message: "too many requests: try again later"})
		return
	}
	leave, ok := s.limits.enter(name)
	if !ok {
		answer(w, http.StatusServiceUnavailable,
			refusal{Code: "Busy", Message: "too many requests of this peer at once: try again"})
		return
	}
	defer leave()
	if err := h(w, r, name); err != nil {
		var st status
		if errors.As(err, &st) && st.Code != notNewer && r.URL.Path != agentapi.ProbePath {
			s.record(r.Context(), state.Event{
				Actor: actorOf(name), From: host(r.RemoteAddr), Action: "peer " + strings.TrimPrefix(r.URL.Path, "/v1/"),
				Object: actorOf(name), Outcome: state.Refused, Detail: st.Message,
			})
		}
		s.refuse(w, err, "peer", name)
	}
}

var notAPeer = refusal{Code: "NotAPeer", Message: "nothing may pass between these meshes now"}

func (s *Service) serveBundle(w http.ResponseWriter, r *http.Request, name string) error {
	b, err := s.bundle(r.Context())
	if err != nil {
		return err
	}
	doc, err := b.Encode()
	if err != nil {
		return fmt.Errorf("write own bundle: %w", err)
	}
	if !peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name].Live {
		w.Header().Set(headerCalls, callsRefused)
	}
	w.Header().Set(headerReadiness, strconv.FormatUint(s.readinessOf(name), 10))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := w.Write(doc); err != nil {
		return err
	}
	now := s.Now()
	s.note(name, func(h *Health) { h.Served, h.ServedSequence = now, b.Sequence })
	return nil
}

func (s *Service) takeCatalogue(w http.ResponseWriter, r *http.Request, name string) error {
	raw, err := readBody(w, r, MaxCatalogueBytes)
	if err != nil {
		return err
	}
	c, err := ParseCatalogue(raw, s.Now().UTC())
	if err != nil {
		return status{http.StatusBadRequest, refusal{Code: "BadCatalogue", Message: printable(err.Error(), 400)}}
	}
	s.making.Lock()
	defer s.making.Unlock()
	if s.suspended(name) {
		return status{http.StatusForbidden, notAPeer}
	}
	p, err := s.peer(r.Context(), name)
	if err != nil {
		return err
	}
	if held := p.state.Catalogue; held != nil && c.Sequence <= held.Sequence && !ahead(held.Sequence, c.Time) {
		return staleCatalogue(held.Sequence)
	}
	err = s.Store.SetPeerCatalogue(r.Context(), name, *c)
	switch {
	case errors.Is(err, state.ErrRevoked):
		return status{http.StatusForbidden, notAPeer}
	case err != nil:
		return fmt.Errorf("keep catalogue: %w", err)
	}
	s.Changed()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// notNewer is what a peer hears whose clock is behind: it goes on from there.
const notNewer = "NotNewer"

func staleCatalogue(held uint64) error {
	return status{http.StatusConflict, refusal{
		Code: notNewer, Message: "a catalogue with this or a later sequence was taken before", Sequence: held,
	}}
}

// suspended says that of all that a peer's control plane may say only roots are heard.
func (s *Service) suspended(name string) bool {
	return peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name].Reason == peerrules.Suspended
}

// snapshotNow is the newest snapshot with the time of this moment.
func (s *Service) snapshotNow() *snapshot.Snapshot {
	snap := *s.Snapshot()
	snap.Time = s.Now()
	return &snap
}

// status is a refusal with its HTTP status.
type status struct {
	code int
	refusal
}

// refuse answers an error: refusals as they are, anything else as a fault of ours that is logged and not shown.
func (s *Service) refuse(w http.ResponseWriter, err error, key, value string) {
	var st status
	if errors.As(err, &st) {
		s.Log.Warn("peering request refused", key, value, "reason", st.Code, "cause", st.Message)
		answer(w, st.code, st.refusal)
		return
	}
	s.Log.Error("peering request failed", key, value, "cause", err.Error())
	answer(w, http.StatusInternalServerError, refusal{Code: "Internal", Message: "this control plane could not answer: try again later"})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the other side has gone: nobody is left to tell
}

// readBody reads a bounded body.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, status{http.StatusRequestEntityTooLarge, refusal{Code: "TooLarge", Message: fmt.Sprintf("more than %d bytes", limit)}}
	case err != nil:
		return nil, status{http.StatusBadRequest, refusal{Code: "Unreadable", Message: "the request ended early or came too slowly"}}
	}
	return raw, nil
}
