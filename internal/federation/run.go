package federation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// lookAgain is how often Run reads the snapshot without a call of Wake.
const lookAgain = 5 * time.Second

// confirmEvery is how often the confirmation of unchanged roots is written.
const confirmEvery = 5 * time.Minute

// follower is the goroutine that serves one peer.
type follower struct {
	stop             context.CancelFunc
	wake             chan struct{} // capacity 1: something may have changed for this peer
	readinessChanged chan struct{} // likewise for its readiness reports
}

// Run serves every peer until ctx is done, while this control plane leads. It adopts roots from files, refreshes
// bundles, and pushes catalogues and readiness.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	followers := map[string]follower{}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		s.writeUnwritten(ctx)
		if _, leads := s.Leading(); leads {
			s.adoptAll(ctx)
			s.redateFutureRoots(ctx)
		}
		s.follow(ctx, g, followers)
		due := s.nextChange()
		select {
		case <-ctx.Done():
			if err := g.Wait(); err != nil {
				return err
			}
			return ctx.Err()
		case <-s.wake:
		case <-tick.C:
		case <-due:
			s.Changed()
		}
	}
}

// follow starts and stops followers as peers come and go, and wakes the others. While another control plane leads,
// there are none.
func (s *Service) follow(ctx context.Context, g *errgroup.Group, followers map[string]follower) {
	verdicts := peerrules.All(s.snapshotNow(), s.TrustDomain.Name())
	_, leads := s.Leading()
	for name, f := range followers {
		if !leads || !s.shouldFollow(name, verdicts[name]) {
			f.stop()
			delete(followers, name)
		}
	}
	s.forgetHealth(verdicts)
	for name, v := range verdicts {
		if !leads || !s.shouldFollow(name, v) {
			continue
		}
		f, ok := followers[name]
		if !ok {
			one, stop := context.WithCancel(ctx)
			f = follower{stop, make(chan struct{}, 1), make(chan struct{}, 1)}
			followers[name] = f
			g.Go(func() error { s.keepUp(one, name, f); return nil })
			g.Go(func() error { s.reportReadiness(one, name, f.readinessChanged); return nil })
		}
		signal(f.wake)
		signal(f.readinessChanged)
	}
}

// signal wakes the receiver and never blocks.
func signal(bell chan<- struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// shouldFollow reports whether a peer may talk or its first root is still to be fetched.
func (s *Service) shouldFollow(name string, v peerrules.Verdict) bool {
	return v.Control || v.Reason == peerrules.NoRoots && fetchable(s.meshPeer(name))
}

// nextChange returns a channel that fires when time alone changes the meaning of the snapshot: a peer's verdict, or an
// invitation's expiry.
func (s *Service) nextChange() <-chan time.Time {
	snap := s.Snapshot()
	var next time.Time
	sooner := func(t time.Time) {
		// The snapshot already reflects what had ended before it was made.
		if !t.IsZero() && t.After(snap.Time) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, v := range peerrules.All(snap, s.TrustDomain.Name()) {
		sooner(v.Until)
	}
	for _, i := range snap.Invites {
		sooner(i.Expires)
	}
	if next.IsZero() {
		return nil
	}
	return time.After(max(next.Sub(s.Now()), 50*time.Millisecond))
}

// keepUp serves one peer until ctx is done.
func (s *Service) keepUp(ctx context.Context, name string, f follower) {
	refresh := time.NewTimer(0)
	defer refresh.Stop()
	var push catalogueDelivery
	var tell noticeProgress
	failures, reached, limit := 0, false, s.ageLimit(name)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			if now := s.ageLimit(name); now != limit {
				limit = now // the stored confirmation may be too old by this limit
				refresh.Reset(0)
			} else if wait, hurry := s.refreshWait(name); hurry {
				refresh.Reset(wait)
			}
		case <-refresh.C:
			wait, err := s.refreshOne(ctx, name)
			if err != nil {
				failures++
				wait = backoff(failures, s.MinRefresh, s.MaxRefresh)
				push = catalogueDelivery{} // push the catalogue again after a reconnect
			} else {
				failures = 0
			}
			reached = err == nil
			s.noteRefresh(ctx, name, err, failures)
			signal(f.readinessChanged)
			refresh.Reset(jitter(wait))
		}
		services := s.offer(name)
		if reached {
			if !s.suspended(name) {
				s.pushIfDue(ctx, name, services, &push)
			}
			s.noticeIfDue(ctx, name, &tell)
		}
	}
}

// ageLimit returns the maximum age of a peer's roots, or 0 if there is none.
func (s *Service) ageLimit(name string) time.Duration {
	p := s.meshPeer(name)
	if p == nil {
		return 0
	}
	limit, _ := peerrules.MaxBundleAge(p)
	return limit
}

// refreshOne fetches a peer's bundle once and returns the time until the next fetch.
func (s *Service) refreshOne(ctx context.Context, name string) (time.Duration, error) {
	p := s.meshPeer(name)
	if p == nil {
		return s.MaxRefresh, fmt.Errorf("peer %s has gone", name)
	}
	if fetchable(p) && !peerrules.Adopted(p, s.Snapshot().Peers[name]) {
		return s.MinRefresh, s.fetchRoot(ctx, p)
	}
	if !peerrules.Refreshes(p) {
		return s.MaxRefresh, s.checkReachable(ctx, p)
	}
	b, err := s.fetchBundle(ctx, p)
	if err != nil {
		return 0, err
	}
	wait := min(max(b.RefreshHint, s.MinRefresh), s.MaxRefresh)
	if limit, bounded := peerrules.MaxBundleAge(p); bounded {
		wait = min(wait, limit/3)
	}
	if s.confirmed(p, b) {
		return wait, nil
	}
	return wait, s.takeBundle(ctx, name, b)
}

// confirmed reports whether a bundle is unchanged and its last confirmation so recent that the new one need not be
// written. Peers are asked often, to see whether they answer, and each write would make the whole mesh recompute.
func (s *Service) confirmed(p *v1alpha1.MeshPeer, b Bundle) bool {
	kept := s.Snapshot().Peers[p.Name]
	held, err := peerrules.ParseRoots(peerrules.Roots(p, kept))
	if err != nil || !peerrules.Adopted(p, kept) || kept.BundleSequence != b.Sequence || !sameRoots(held, b.Roots) {
		return false
	}
	often := confirmEvery
	if limit, bounded := peerrules.MaxBundleAge(p); bounded {
		often = min(often, limit/4)
	}
	age := s.Now().Sub(kept.BundleTime)
	return age >= 0 && age < often
}

// backoff returns the pause after a number of failures in a row. It doubles from least to most.
func backoff(failures int, least, most time.Duration) time.Duration {
	d := least
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// jitter shortens a pause by up to a fifth, so that peers do not act in lockstep.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

func (s *Service) snapshotConfig() *snapshot.Config {
	if c := s.Snapshot().Config; c != nil {
		return c
	}
	return &snapshot.Config{}
}
