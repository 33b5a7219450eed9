package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// redeeming is the request that won an invitation, since this process started.
type redeeming struct {
	digest  string // of the winning request
	secret  [32]byte
	answer  self
	expires time.Time
}

// forInvite handles the acceptance of an invitation.
func (s *Service) forInvite() http.Handler {
	invited := door.HTTP{Door: s.Door, Refuse: s.answerRefusal, Identify: func(r *http.Request) (door.Caller, error) {
		return door.Caller{Kind: door.Stranger, Addr: address(r.RemoteAddr)}, nil
	}}
	h := invited.Handle(methodInvited, func(w http.ResponseWriter, r *http.Request, _ door.Caller) error {
		id, _ := s.inviteOf(r)
		got, err := s.takePeering(r, id)
		if err != nil {
			s.recordAcceptance(r, id, err)
			s.refuse(w, err, "invite", id)
			return nil
		}
		answer(w, http.StatusOK, got)
		return nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := s.inviteOf(r); !ok {
			answer(w, http.StatusBadRequest,
				refusal{Code: "NoInvitation", Message: "the name asked for is no invitation's"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// inviteOf returns the invitation that a request accepts.
func (s *Service) inviteOf(r *http.Request) (id string, ok bool) {
	id, ok = sni.InviteOf(r.TLS.ServerName, s.TrustDomain.Name())
	return id, ok && isInviteID(id)
}

// recordAcceptance records a refused acceptance unless the state did. It records nothing that a stranger can invent, so
// that nobody can fill the record.
func (s *Service) recordAcceptance(r *http.Request, id string, err error) {
	var st status
	if !errors.As(err, &st) || slices.Contains([]string{"Unknown", "Used", "Expired"}, st.Code) {
		return
	}
	if !slices.ContainsFunc(s.Snapshot().Invites, func(i snapshot.Invite) bool { return i.ID == id }) {
		id = ""
	}
	detail, _, _ := strings.Cut(st.Message, ": ")
	if st.code == http.StatusBadRequest {
		detail = "the request is not what it should be"
	}
	s.recordStranger(r.Context(), state.Event{
		From: host(r.RemoteAddr), Action: "peer redeem", Object: id, Detail: detail,
	})
}

func (s *Service) takePeering(r *http.Request, id string) (self, error) {
	raw, err := readBody(r)
	if err != nil {
		return self{}, err
	}
	var req peeringRequest
	if err := strictJSON(raw, &req); err != nil {
		return self{}, badRequest("the request is not what it should be")
	}
	secret, err := ParseSecret(req.Secret)
	if err != nil {
		return self{}, badRequest(err.Error())
	}
	if !isInviteID(req.Nonce) {
		return self{}, badRequest("the nonce is not 32 hex digits")
	}
	in, err := req.read(s.Now())
	if err != nil {
		return self{}, badRequest(err.Error())
	}
	control := spiffe.Control(in.TrustDomain).String()
	if err := verifyID(r.TLS.PeerCertificates, in.TrustDomain, in.Bundle.Roots, s.Now(), control); err != nil {
		return self{}, status{http.StatusForbidden, refusal{
			Code:    "Unproved",
			Message: "who asks is not the control plane of the mesh that it introduces: " + printable(err.Error(), 400),
		}}
	}
	s.making.Lock()
	defer s.making.Unlock()
	if own, err := s.Fingerprint(); err != nil || own != req.Expects {
		return self{}, status{http.StatusConflict, refusal{
			Code:    "Changed",
			Message: "the inviting mesh's roots or gateways are not those of the invitation any more: ask for a new one",
		}}
	}
	return s.redeem(r.Context(), id, secret, host(r.RemoteAddr), req.digest(), in)
}

func badRequest(message string) error {
	return status{http.StatusBadRequest, refusal{Code: "BadRequest", Message: printable(message, 400)}}
}

// redeem makes the peer if the secret is correct and unused. The caller holds making.
func (s *Service) redeem(
	ctx context.Context, id string, secret Secret, from, digest string, in introduction,
) (self, error) {
	if answer, ok := s.repeated(id, secret, digest); ok {
		return answer, nil
	}
	used, err := s.Store.UseInvite(ctx, id, secret.Hash(), from, s.Now())
	if err != nil {
		return self{}, refuseInvite(err)
	}
	answer, err := s.introductionTo(ctx, used.Peer)
	if err != nil {
		return self{}, err
	}
	err = s.establish(ctx, used.Peer, in)
	var c errClash
	if errors.As(err, &c) {
		s.Log.Warn("invited mesh refused", "peer", used.Peer, "trust_domain", in.TrustDomain.Name(), "reason",
			c.message)
		s.record(ctx, state.Event{
			Actor: actorOf(used.Peer), Action: "peer redeem", Object: actorOf(used.Peer), Outcome: state.Refused,
			Detail: fmt.Sprintf("trust domain %s: %s", in.TrustDomain.Name(), c.message),
		})
		return self{}, status{
			http.StatusConflict,
			refusal{Code: "Clash", Message: "the inviting mesh cannot take this mesh as a peer, because its " +
				"name, trust domain, root or gateway address is taken there; the log of its control plane says which: ask for a new invitation when that is mended"},
		}
	}
	if err != nil {
		return self{}, err
	}
	s.record(ctx, state.Event{
		Actor: actorOf(used.Peer), Action: "peer redeem", Object: actorOf(used.Peer), Outcome: state.OK,
		Detail: fmt.Sprintf("trust domain %s, fingerprint %s", in.TrustDomain.Name(), in.fingerprint()),
	})
	s.Log.Info("peer joined", "peer", used.Peer, "trust_domain", in.TrustDomain.Name(), "fingerprint", in.fingerprint())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invites[id] = &redeeming{digest: digest, secret: secret.Hash(), answer: answer, expires: used.Expires}
	return answer, nil
}

// repeated returns the stored answer if a winning request is repeated unchanged.
func (s *Service) repeated(id string, secret Secret, digest string) (self, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for known, r := range s.invites {
		if !s.Now().Before(r.expires) {
			delete(s.invites, known)
		}
	}
	r := s.invites[id]
	if r == nil || r.digest != digest || !secret.matches(r.secret[:]) {
		return self{}, false
	}
	return r.answer, true
}

// refuseInvite reveals the reason only to a caller that has the secret.
func refuseInvite(cause error) error {
	no := func(code int, reason, message string) error {
		return status{code, refusal{Code: reason, Message: message}}
	}
	switch {
	case errors.Is(cause, state.ErrUsed):
		return no(http.StatusConflict, "Used",
			"the invitation was used already: ask for a new one, and ask who used this one")
	case errors.Is(cause, state.ErrExpired):
		return no(http.StatusGone, "Expired", "the invitation has expired: ask for a new one")
	case errors.Is(cause, state.ErrSecret), errors.Is(cause, state.ErrNotFound):
		return no(http.StatusForbidden, "Unknown",
			"there is no such invitation, or its secret is another: ask for a new one")
	default:
		return fmt.Errorf("use invitation: %w", cause)
	}
}
