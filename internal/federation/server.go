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

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Paths of the peering server.
const (
	PathBundle    = "/v1/bundle"
	PathCatalogue = "/v1/catalogue"
	PathReadiness = "/v1/readiness"
	PathPeering   = "/v1/peering"
)

// peerHandler serves the control planes of peers and invited meshes.
func (s *Service) peerHandler() http.Handler {
	peers := door.HTTP{
		Door: s.Door, Identify: s.identifyPeer, Refuse: s.answerRefusal,
		Object: func(r *http.Request) string { return r.TLS.ServerName },
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+PathBundle, peers.Handle(methodBundle, s.recorded(s.serveBundle)))
	mux.Handle("POST "+PathBundle, peers.Handle(methodNotice, s.recorded(s.takeNotice)))
	mux.Handle("POST "+PathCatalogue, peers.Handle(methodCatalogue, s.recorded(s.takeCatalogue)))
	mux.Handle("POST "+PathReadiness, peers.Handle(methodReadiness, s.recorded(s.takeReadiness)))
	mux.Handle("POST "+PathPeering, s.forInvite())
	return s.guarded(mux)
}

// probeHandler serves peers' gateways. Our own gateway names the peer, which is trusted only for probes.
func (s *Service) probeHandler() http.Handler {
	probes := s.probes()
	return s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.fromGateway(r.Context(), r.RemoteAddr, *r.TLS); err != nil { // it may have been removed meanwhile
			answer(w, http.StatusForbidden, refusal{Code: "NotAGateway", Message: err.Error()})
			return
		}
		probes.ServeHTTP(w, r)
	}))
}

func (s *Service) probes() http.Handler {
	peers := door.HTTP{Door: s.Door, Identify: s.identifyProbe, Refuse: s.answerRefusal}
	mux := http.NewServeMux()
	mux.Handle("GET "+wellknown.ProbePath, peers.Handle(methodProbe, s.recorded(s.answerProbe)))
	return mux
}

// guarded limits the number of concurrent requests.
func (s *Service) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.limits.slots <- struct{}{}:
			defer func() { <-s.limits.slots }()
		default:
			answer(w, http.StatusServiceUnavailable,
				refusal{Code: "Busy", Message: "too many requests at once: try again"})
			return
		}
		// not every writer of tests can
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.ReadTimeout))
		next.ServeHTTP(w, r)
	})
}

// identifyPeer returns the peer whose control plane is calling. Other callers, and peers that may not talk, learn
// nothing more.
func (s *Service) identifyPeer(r *http.Request) (door.Caller, error) {
	caller := door.Caller{Kind: door.Stranger, Addr: address(r.RemoteAddr)}
	name, err := s.peerOf(r.TLS)
	if err != nil {
		return caller, grpcstatus.Error(codes.PermissionDenied, err.Error())
	}
	caller.Kind, caller.Name = door.Peer, name
	return caller, nil
}

// identifyProbe returns the peer whose gateway is calling, as our own gateway names it.
func (s *Service) identifyProbe(r *http.Request) (door.Caller, error) {
	caller := door.Caller{Kind: door.Stranger, Addr: address(r.RemoteAddr)}
	names := r.Header.Values(HeaderPeer)
	if len(names) != 1 {
		return caller, status{
			http.StatusBadRequest, refusal{Code: "NoPeer", Message: "the gateway did not say for whom it asks"},
		}
	}
	if !peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[names[0]].Control {
		return caller, status{http.StatusForbidden, notAPeer}
	}
	caller.Kind, caller.Name = door.PeerGateway, names[0]
	return caller, nil
}

// answerRefusal answers a request that the door refused.
func (s *Service) answerRefusal(w http.ResponseWriter, r *http.Request, err error) {
	var own status
	code := grpcstatus.Code(err)
	switch {
	case errors.As(err, &own):
		answer(w, own.code, own.refusal)
	case errors.As(err, new(door.Busy)):
		answer(w, http.StatusServiceUnavailable, refusal{Code: "Busy", Message: "too many requests at once: try again"})
	case code == codes.ResourceExhausted:
		answer(w, http.StatusTooManyRequests, refusal{Code: "TooMany", Message: "too many requests: try again later"})
	case code == codes.PermissionDenied, code == codes.Unauthenticated:
		answer(w, http.StatusForbidden, notAPeer)
	default:
		s.refuse(w, err, "path", r.URL.Path)
	}
}

type peerHandler func(w http.ResponseWriter, r *http.Request, name string) error

// recorded answers with a handler's error and records it.
func (s *Service) recorded(h peerHandler) func(http.ResponseWriter, *http.Request, door.Caller) error {
	return func(w http.ResponseWriter, r *http.Request, c door.Caller) error {
		err := h(w, r, c.Name)
		if err == nil {
			return nil
		}
		var st status
		if errors.As(err, &st) && st.Code != notNewer && c.Kind != door.PeerGateway {
			s.record(r.Context(), state.Event{
				Actor: c.Actor(), From: c.From(), Action: "peer " + strings.TrimPrefix(r.URL.Path, "/v1/"),
				Object: c.Actor(), Outcome: state.Refused, Detail: st.Message,
			})
		}
		s.refuse(w, err, "peer", c.Name)
		return nil
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
	s.updateHealth(name, func(h *Health) { h.Served, h.ServedSequence = now, b.Sequence })
	return nil
}

func (s *Service) takeCatalogue(w http.ResponseWriter, r *http.Request, name string) error {
	raw, err := readBody(r)
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
	var held uint64
	if p.state.Catalogue != nil {
		held = p.state.Catalogue.Sequence
	}
	if held > 0 && c.Sequence <= held && !inFuture(held, c.Time) {
		return staleCatalogue(held)
	}
	err = s.Store.SetPeerCatalogue(r.Context(), name, *c, held)
	switch {
	case errors.Is(err, state.ErrSuperseded): // another control plane of this mesh is storing one
		return status{
			http.StatusServiceUnavailable,
			refusal{Code: "Busy", Message: "another catalogue came at the same time: try again"},
		}
	case errors.Is(err, state.ErrRevoked):
		return status{http.StatusForbidden, notAPeer}
	case err != nil:
		return fmt.Errorf("keep catalogue: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// notNewer tells a peer that its clock is behind; the peer continues from the number in the answer.
const notNewer = "NotNewer"

func staleCatalogue(held uint64) error {
	return status{http.StatusConflict, refusal{
		Code: notNewer, Message: "a catalogue with this or a later sequence was taken before", Sequence: held,
	}}
}

// suspended reports whether only roots are accepted from a peer's control plane.
func (s *Service) suspended(name string) bool {
	return peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name].Reason == peerrules.Suspended
}

// snapshotNow returns the newest snapshot with the current time.
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

// refuse answers with an error. A refusal is sent as it is; any other error is logged and answered as an internal
// error.
func (s *Service) refuse(w http.ResponseWriter, err error, key, value string) {
	var st status
	if errors.As(err, &st) {
		s.Log.Warn("peering request refused", key, value, "code", st.Code, "reason", st.Message)
		answer(w, st.code, st.refusal)
		return
	}
	s.Log.Error("peering request failed", key, value, "error", err)
	answer(w, http.StatusInternalServerError,
		refusal{Code: "Internal", Message: "this control plane could not answer: try again later"})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // if the client is gone, there is nobody to tell
}

// readBody reads a body, whose size the door has limited.
func readBody(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, status{
			http.StatusRequestEntityTooLarge,
			refusal{Code: "TooLarge", Message: fmt.Sprintf("more than %d bytes", large.Limit)},
		}
	case err != nil:
		return nil, status{
			http.StatusBadRequest, refusal{Code: "Unreadable", Message: "the request ended early or came too slowly"},
		}
	}
	return raw, nil
}
