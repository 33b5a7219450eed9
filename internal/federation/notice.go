package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
)

// When our bundle changes, each peer is notified and asked whether its proxies have the new one. The notice itself is
// not trusted: the peer fetches the bundle as usual. Notices repeat until the peer's proxies have it.

const (
	maxNotice = 4 << 10
	// noticeEvery is the pause between two notices to a peer whose proxies do not have the bundle yet.
	noticeEvery = 500 * time.Millisecond
	// hurryEvery limits how often a peer's notices trigger an early fetch.
	hurryEvery = time.Second
)

// notice announces the sender's bundle.
type notice struct {
	Sequence uint64   `json:"sequence"`
	Roots    []string `json:"roots"` // SHA-256, hex
}

// noticeAnswer reports whether all proxies of the receiver trust these roots.
type noticeAnswer struct {
	InForce bool `json:"inForce"`
	ByHand  bool `json:"byHand,omitempty"` // only an administrator can change its roots of us
}

// BundleDelivery is the progress of this mesh's current bundle at a peer.
type BundleDelivery struct {
	Sequence uint64
	// Fetched is when the peer last fetched it; zero if it has not.
	Fetched time.Time
	// InForce means that the peer says its proxies have it.
	InForce bool
	// ByHand means that the peer does not fetch bundles; its administrator must install the new one.
	ByHand bool
	// Error says why the peer could not be asked.
	Error string
}

// BundleDelivery returns the progress of this mesh's current bundle at a peer.
func (s *Service) BundleDelivery(ctx context.Context, peer string) (BundleDelivery, error) {
	b, err := s.bundle(ctx)
	if err != nil {
		return BundleDelivery{}, err
	}
	h := s.Health(peer)
	t := BundleDelivery{
		Sequence: b.Sequence, InForce: h.NoticedSequence == b.Sequence, ByHand: h.ByHand,
		Error: h.NoticeError,
	}
	if h.ServedSequence == b.Sequence {
		t.Fetched = h.Served
	}
	return t, nil
}

// noticeProgress is the progress of our bundle at one peer, for its follower.
type noticeProgress struct {
	failures int
	due      time.Time // not before this time
}

// noticeIfDue notifies a peer of our bundle unless its proxies are known to have it.
func (s *Service) noticeIfDue(ctx context.Context, name string, n *noticeProgress) {
	b, err := s.bundle(ctx)
	if err != nil || s.Health(name).NoticedSequence == b.Sequence || s.Now().Before(n.due) {
		return
	}
	p := s.meshPeer(name)
	if p == nil {
		return
	}
	a, err := s.notify(ctx, p, notice{Sequence: b.Sequence, Roots: fingerprints(b.Roots)})
	if ctx.Err() != nil {
		return
	}
	s.updateHealth(name, func(h *Health) {
		h.NoticeError, h.ByHand = "", a.ByHand
		if err != nil {
			h.NoticeError = err.Error()
		}
		if a.InForce {
			h.NoticedSequence = b.Sequence
		}
	})
	if a.InForce {
		*n = noticeProgress{}
		return
	}
	wait := noticeEvery
	if err != nil {
		n.failures++
		wait = backoff(n.failures, noticeEvery, s.MaxRefresh)
	}
	n.due = s.Now().Add(wait)
	time.AfterFunc(wait, s.Wake)
}

func (s *Service) notify(ctx context.Context, p *v1alpha1.MeshPeer, n notice) (a noticeAnswer, err error) {
	body, err := json.Marshal(n)
	if err != nil {
		return a, err
	}
	r, err := s.askPeer(ctx, p, exchange{method: http.MethodPost, path: PathBundle, body: body, limit: maxNotice})
	if err != nil {
		return a, fmt.Errorf("tell of own bundle: %w", err)
	}
	if err := json.Unmarshal(r.body, &a); err != nil {
		return noticeAnswer{}, errors.New("tell of own bundle: the answer cannot be read")
	}
	return a, nil
}

// takeNotice handles a peer's notice. It fetches the peer's bundle at once and answers whether all proxies have it.
func (s *Service) takeNotice(w http.ResponseWriter, r *http.Request, name string) error {
	raw, err := readBody(r)
	if err != nil {
		return err
	}
	var n notice
	if err := strictJSON(raw, &n); err != nil || len(n.Roots) == 0 || len(n.Roots) > peerrules.MaxRoots {
		return status{
			http.StatusBadRequest,
			refusal{Code: "BadNotice", Message: "the notice of a new bundle is not what it should be"},
		}
	}
	p := s.meshPeer(name)
	if p == nil {
		return status{http.StatusForbidden, notAPeer}
	}
	inForce := s.trusts(p, n.Roots)
	if news := n.Sequence > s.Snapshot().Peers[name].BundleSequence; (news || !inForce) && peerrules.Refreshes(p) {
		s.refreshPeerSoon(name)
	}
	inForce = inForce && s.InForce(p.Spec.TrustDomain)
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(noticeAnswer{InForce: inForce, ByHand: !peerrules.Refreshes(p)})
}

// trusts reports whether a peer's roots include all of these.
func (s *Service) trusts(p *v1alpha1.MeshPeer, want []string) bool {
	certs, err := peerrules.ParseRoots(peerrules.Roots(p, s.Snapshot().Peers[p.Name]))
	if err != nil {
		return false
	}
	held := fingerprints(certs)
	return !slices.ContainsFunc(want, func(f string) bool { return !slices.Contains(held, f) })
}

// refreshPeerSoon schedules an early fetch of a peer's bundle.
func (s *Service) refreshPeerSoon(name string) {
	s.updateHealth(name, func(h *Health) { h.refreshSoon = true })
	s.Wake()
}

// refreshWait returns the time until the next fetch of a peer's bundle, and whether it is an early one.
func (s *Service) refreshWait(name string) (wait time.Duration, hurry bool) {
	now := s.Now()
	s.updateHealth(name, func(h *Health) {
		hurry, h.refreshSoon = h.refreshSoon, false
		wait = max(0, min(hurryEvery, h.RefreshTried.Add(hurryEvery).Sub(now)))
	})
	return wait, hurry
}
