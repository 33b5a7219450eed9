package federation

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
	PathPeering   = "/v1/peering"
)

// idleTimeout is how long a gateway's connection may stay open between requests.
const idleTimeout = 2 * time.Minute

// Handler is the peering server: what peers' control planes say, as this mesh's gateways pass it on.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathBundle, s.forPeer(usualPace, "peer", s.serveBundle))
	mux.HandleFunc("POST "+PathBundle, s.forPeer(usualPace, "peer", s.takeNotice))
	mux.HandleFunc("POST "+PathCatalogue, s.forPeer(usualPace, "peer", s.takeCatalogue))
	mux.HandleFunc("GET "+agentapi.ProbePath, s.forPeer(probePace, "probe", s.answerProbe))
	mux.HandleFunc("POST "+PathPeering, s.forInvite)
	return s.guarded(mux)
}

// HTTPServer serves Handler with time limits that a slow sender cannot outlast. The TLS configuration must demand client
// certificates of this mesh.
func (s *Service) HTTPServer(tlsConfig *tls.Config) *http.Server {
	return &http.Server{
		Handler: s.Handler(), TLSConfig: tlsConfig, ReadHeaderTimeout: s.ReadTimeout, ReadTimeout: s.ReadTimeout,
		WriteTimeout: 2 * s.ReadTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// guarded lets only gateways in, and only so many at a time.
func (s *Service) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.FromGateway(r); err != nil {
			s.Log.Warn("peering request refused", "from", r.RemoteAddr, "cause", err.Error())
			answer(w, http.StatusForbidden, refusal{Code: "NotAGateway", Message: "only this mesh's gateways may ask here"})
			return
		}
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

// one is the single value of a header that a gateway sets; other must be absent.
func one(h http.Header, name, other string) (string, bool) {
	v := h.Values(name)
	return h.Get(name), len(v) == 1 && v[0] != "" && len(h.Values(other)) == 0
}

type peerHandler func(w http.ResponseWriter, r *http.Request, name string) error

// forPeer is for what established peers ask. A peer with which nothing may pass learns nothing more than that.
func (s *Service) forPeer(p pace, kind string, h peerHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, ok := one(r.Header, HeaderPeer, HeaderInvite)
		if !ok {
			answer(w, http.StatusBadRequest, refusal{Code: "NoPeer", Message: "the gateway did not say for whom it asks"})
			return
		}
		v, known := peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name]
		if !known || !v.Control {
			answer(w, http.StatusForbidden, refusal{Code: "NotAPeer", Message: "nothing may pass between these meshes now"})
			return
		}
		if !s.limits.allowAt(p, kind+"/"+name) {
			answer(w, http.StatusTooManyRequests, refusal{Code: "TooMany", Message: "too many requests: try again later"})
			return
		}
		if err := h(w, r, name); err != nil {
			s.refuse(w, err, "peer", name)
		}
	}
}

func (s *Service) serveBundle(w http.ResponseWriter, r *http.Request, name string) error {
	b, err := s.bundle(r.Context())
	if err != nil {
		return err
	}
	doc, err := b.Encode()
	if err != nil {
		return fmt.Errorf("write own bundle: %w", err)
	}
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
		return status{http.StatusBadRequest, refusal{Code: "BadCatalogue", Message: err.Error()}}
	}
	s.making.Lock()
	defer s.making.Unlock()
	p, err := s.peer(r.Context(), name)
	if err != nil {
		return err
	}
	if held := p.state.Catalogue; held != nil && c.Sequence <= held.Sequence {
		return staleCatalogue(held.Sequence)
	}
	err = s.Store.SetPeerCatalogue(r.Context(), name, *c)
	switch {
	case errors.Is(err, state.ErrSequence):
		return staleCatalogue(0)
	case errors.Is(err, state.ErrRevoked):
		return status{http.StatusForbidden, refusal{Code: "NotAPeer", Message: "nothing may pass between these meshes now"}}
	case err != nil:
		return fmt.Errorf("keep catalogue: %w", err)
	}
	s.Changed()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func staleCatalogue(held uint64) error {
	return status{http.StatusConflict, refusal{Code: "NotNewer", Message: "a catalogue with this or a later sequence was taken before", Sequence: held}}
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
