package federation

import (
	"context"
	"fmt"
	"maps"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// A suspension or revocation takes effect before it is written to the state. It stays in effect if the write fails, and
// the write is retried until it succeeds.

// closure says how a peer is closed: suspended or revoked.
type closure struct{ revoked bool }

// Suspend blocks everything with a peer until Resume, except the exchange of roots.
func (s *Service) Suspend(ctx context.Context, name string) error {
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.notRevoked(ctx, name); err != nil {
		return err
	}
	return s.closePeer(ctx, name, closure{})
}

// Resume ends a suspension by command.
func (s *Service) Resume(ctx context.Context, name string) error {
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.notRevoked(ctx, name); err != nil {
		return err
	}
	if p := s.meshPeer(name); p != nil && p.Spec.Suspend {
		return fmt.Errorf("peer %s is suspended by its MeshPeer: remove spec.suspend there", name)
	}
	if err := s.Store.SetPeerSuspended(ctx, name, false); err != nil {
		return fmt.Errorf("end suspension of peer %s: %w", name, err)
	}
	delete(s.unwritten, name)
	s.Unblock(name)
	return nil
}

// Revoke ends the trust in a peer for good. The peer is not notified.
func (s *Service) Revoke(ctx context.Context, name string) error {
	s.making.Lock()
	defer s.making.Unlock()
	if _, err := s.lookUpPeer(ctx, name); err != nil {
		return err
	}
	s.forgetAnswers(name)
	return s.closePeer(ctx, name, closure{revoked: true})
}

// forgetAnswers drops the stored answers from which a peer could learn again that this mesh accepted it.
func (s *Service) forgetAnswers(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.invites, func(_ string, r *redeeming) bool { return r.answer.KnownAs == peer })
}

// lookUpWait is how long the state may take to say what it knows of a peer that is known here too.
const lookUpWait = time.Second

// lookUpPeer looks a peer up in the state, or else in the snapshot: a state that cannot be read must not prevent
// closing a peer.
func (s *Service) lookUpPeer(ctx context.Context, name string) (revoked bool, err error) {
	object := s.meshPeer(name)
	if object != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookUpWait)
		defer cancel()
	}
	p, err := s.peer(ctx, name)
	if err != nil && object != nil {
		return s.Snapshot().Peers[name].Revoked || s.unwritten[name].revoked, nil
	}
	return p.state.Revoked || s.unwritten[name].revoked, err
}

func (s *Service) notRevoked(ctx context.Context, name string) error {
	revoked, err := s.lookUpPeer(ctx, name)
	if err == nil && revoked {
		err = fmt.Errorf("peer %s is revoked, which no command undoes: take its MeshPeer out of the "+
			"files, if it stands in one, "+
			"then peer anew with 'isthmus peer invite %s' or 'isthmus peer accept'", name, name)
	}
	return err
}

// closePeer closes a peer at once and then writes that to the state. The caller holds making.
func (s *Service) closePeer(ctx context.Context, name string, how closure) error {
	s.Block(name, how.revoked)
	s.unwritten[name] = how
	err := s.write(context.WithoutCancel(ctx), name, how)
	if err != nil {
		s.Wake()
		return fmt.Errorf("peer %s is shut out now, but that could not be written and would be lost if "+
			"the control plane ended; "+
			"it is tried again every %s: %w", name, lookAgain, err)
	}
	return nil
}

// write records in one transaction how a peer is closed. The caller holds making.
func (s *Service) write(ctx context.Context, name string, how closure) (err error) {
	if how.revoked {
		err = s.Store.RevokePeer(ctx, name, s.Now())
	} else {
		err = s.Store.SetPeerSuspended(ctx, name, true)
	}
	s.updateHealth(name, func(h *Health) { h.Unwritten = "" })
	if err != nil {
		s.updateHealth(name, func(h *Health) { h.Unwritten = err.Error() })
		return err
	}
	delete(s.unwritten, name)
	s.Stored(name)
	return nil
}

// writeUnwritten retries failed writes.
func (s *Service) writeUnwritten(ctx context.Context) {
	s.making.Lock()
	defer s.making.Unlock()
	for name, how := range s.unwritten {
		if err := s.write(ctx, name, how); err != nil {
			s.Log.Error("peer is shut out, and that cannot be written", "peer", name, "error", err)
			continue
		}
		s.Log.Info("peer is shut out, and that is written now", "peer", name)
		action := "peer suspend"
		if how.revoked {
			action = "peer revoke"
		}
		s.record(ctx, state.Event{
			Actor: controlPlane, Action: action, Object: actorOf(name), Outcome: state.OK,
			Detail: "written after it had failed",
		})
	}
}
