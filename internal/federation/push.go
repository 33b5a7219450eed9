package federation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// catalogueDelivery is the progress of our catalogue at one peer.
type catalogueDelivery struct {
	done     bool   // the peer accepted it since the last reconnect
	digest   string // of the catalogue that the peer accepted
	failures int
	due      time.Time // not before this time
}

// offer returns what a peer should know now. The peer counts as behind from this moment, whether it can be reached or
// not.
func (s *Service) offer(name string) []snapshot.OfferedService {
	services := s.offered(name)
	s.updateHealth(name, func(h *Health) { h.wants(digestOf(services), s.Now()) })
	return services
}

func (s *Service) offered(name string) []snapshot.OfferedService {
	return s.InEffect(name, peerrules.Offer(s.snapshotConfig(), name))
}

// pushIfDue pushes our catalogue unless the peer has it.
func (s *Service) pushIfDue(
	ctx context.Context, name string, services []snapshot.OfferedService, p *catalogueDelivery,
) {
	digest := digestOf(services)
	if p.done && p.digest == digest {
		// another catalogue may have existed meanwhile that was never pushed
		s.updateHealth(name, func(h *Health) { h.has(digest) })
		return
	}
	if s.Now().Before(p.due) {
		return
	}
	sequence, err := s.pushCatalogue(ctx, name, services)
	if err != nil {
		p.failures++
		p.due = s.Now().Add(jitter(backoff(p.failures, s.MinRefresh, s.MaxRefresh)))
		s.notePush(ctx, name, digest, 0, err)
		time.AfterFunc(time.Until(p.due), s.Wake)
		return
	}
	*p = catalogueDelivery{done: true, digest: digest}
	s.notePush(ctx, name, digest, sequence, nil)
}

// pushCatalogue sends one catalogue, numbered by the time. If the peer knows a later number, it says so, and the next
// number is tried once.
func (s *Service) pushCatalogue(ctx context.Context, name string, services []snapshot.OfferedService) (uint64, error) {
	object := s.meshPeer(name)
	if object == nil {
		return 0, fmt.Errorf("peer %s has gone", name)
	}
	sequence := uint64(s.Now().UnixMicro())
	taken, err := s.pushAs(ctx, object, sequence, services)
	var r remoteRefusal
	if errors.As(err, &r) && r.status == http.StatusConflict && r.Sequence >= sequence {
		taken, err = s.pushAs(ctx, object, r.Sequence+1, services)
	}
	return taken, err
}

func (s *Service) pushAs(
	ctx context.Context, p *v1alpha1.MeshPeer, sequence uint64, services []snapshot.OfferedService,
) (uint64, error) {
	doc, err := EncodeCatalogue(sequence, services)
	if err != nil {
		return 0, fmt.Errorf("write catalogue: %w", err)
	}
	if _, err := s.askPeer(ctx, p, exchange{
		method: http.MethodPost, path: PathCatalogue, body: doc, limit: 4 << 10,
	}); err != nil {
		return 0, fmt.Errorf("push catalogue: %w", err)
	}
	return sequence, nil
}

func digestOf(services []snapshot.OfferedService) string {
	raw, err := json.Marshal(services)
	if err != nil {
		return "" // cannot happen: strings and numbers only
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
