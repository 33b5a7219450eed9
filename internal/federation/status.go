package federation

import (
	"cmp"
	"fmt"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// expiringWithin is how long before its end a peering or root counts as expiring, unless a third of the root's lifetime
// is less.
const expiringWithin = 14 * 24 * time.Hour

// Condition types of a peer in display order.
const (
	TrustEstablished = "TrustEstablished"
	BundleFresh      = "BundleFresh"
	CatalogueSynced  = "CatalogueSynced"
	DataPathReady    = "DataPathReady"
	Expiring         = "Expiring"
	Suspended        = "Suspended"
	Revoked          = "Revoked"
)

const (
	yes     = "True"
	no      = "False"
	unknown = "Unknown"
)

// Conditions returns a peer's conditions, given its verdict v (peerrules.All) and the state h of the exchange. Since is
// set if it can be derived.
func Conditions(
	now time.Time, p *v1alpha1.MeshPeer, state snapshot.PeerState, v peerrules.Verdict, h Health,
) []adminapi.Condition {
	return []adminapi.Condition{
		trustEstablished(p, state, v, h),
		bundleFresh(now, p, state, v, h),
		catalogueSynced(now, p, state, v, h),
		dataPathReady(now, p, v, h),
		expiring(now, p, state),
		suspended(p, state, h),
		revoked(p, v),
	}
}

// ConditionsOf returns the current conditions of one peer, with the time of their last change.
func (s *Service) ConditionsOf(p *v1alpha1.MeshPeer) []adminapi.Condition {
	snap := s.snapshotNow()
	verdict := peerrules.All(snap, s.TrustDomain.Name())[p.Name]
	all := Conditions(snap.Time, p, snap.Peers[p.Name], verdict, s.Health(p.Name))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range all {
		key := conditionKey{p.Name, c.Type}
		if kept, ok := s.since[key]; !ok || kept.status != c.Status {
			s.since[key] = conditionSince{c.Status, firstOf(c.Since, snap.Time)}
		}
		all[i].Since = s.since[key].since
	}
	return all
}

type conditionKey struct{ peer, condition string }

type conditionSince struct {
	status string
	since  time.Time
}

func firstOf(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

func trustEstablished(
	p *v1alpha1.MeshPeer, state snapshot.PeerState, v peerrules.Verdict, h Health,
) adminapi.Condition {
	c := adminapi.Condition{
		Type: TrustEstablished, Status: yes, Reason: "RootsKnown",
		Message: "the peer's roots are known and bound to " + p.Spec.TrustDomain,
	}
	switch v.Reason {
	case "", peerrules.Stale:
	case peerrules.Suspended, peerrules.Expired:
		if _, err := peerrules.ParseRoots(peerrules.Roots(p, state)); err != nil {
			c.Status, c.Reason, c.Message = no, string(peerrules.NoRoots), "no usable roots of the peer are known"
		}
	default:
		c.Status, c.Reason, c.Message = no, string(v.Reason), v.Message
	}
	if c.Status == yes && h.AdoptError != "" {
		c.Status, c.Reason, c.Message = no, "BundleRefused",
			"the roots in spec.bundle.inline are refused: "+h.AdoptError
	}
	return c
}

func bundleFresh(
	now time.Time, p *v1alpha1.MeshPeer, state snapshot.PeerState, v peerrules.Verdict, h Health,
) adminapi.Condition {
	c := adminapi.Condition{Type: BundleFresh}
	limit, bounded := peerrules.MaxBundleAge(p)
	switch {
	case v.Reason == peerrules.Stale:
		c.Status, c.Reason, c.Message, c.Since = no, "Stale", v.Message, state.BundleTime.Add(limit)
		if h.RefreshError != "" {
			c.Message += ": " + h.RefreshError
		}
	case state.BundleTime.IsZero():
		c.Status, c.Reason, c.Message = unknown, "NeverConfirmed", "the peer's roots were not confirmed yet"
	case !bounded:
		c.Status, c.Reason, c.Message = yes, "FromFile",
			"the peer's roots come from its MeshPeer alone (refresh: false)"
	case h.RefreshError != "" && !h.connecting(now):
		c.Status, c.Reason = yes, "RefreshFailing"
		c.Message = fmt.Sprintf("everything with the peer will be refused in %s unless the refresh succeeds, which now fails: %s",
			limit-age(now, state.BundleTime), h.RefreshError)
	default:
		c.Status, c.Reason = yes, "Confirmed"
		c.Message = fmt.Sprintf("confirmed %s ago, sequence %d; refused when older than %s", age(now, state.BundleTime),
			state.BundleSequence, limit)
	}
	return c
}

func catalogueSynced(
	now time.Time, p *v1alpha1.MeshPeer, state snapshot.PeerState, v peerrules.Verdict, h Health,
) adminapi.Condition {
	c := adminapi.Condition{Type: CatalogueSynced}
	offered := "the peer has offered nothing yet"
	if state.Catalogue != nil {
		offered = fmt.Sprintf("it offers %d", len(state.Catalogue.Services))
	}
	switch {
	case !v.Control || v.Reason == peerrules.Suspended:
		c.Status, c.Reason, c.Message = no, string(v.Reason), "no catalogue passes: "+v.Message
	case h.PushOK.IsZero() && h.PushError == "":
		c.Status, c.Reason, c.Message = unknown, "NotPushedYet", "our catalogue was not pushed yet; "+offered
	case h.PushError != "":
		c.Status, c.Reason, c.Since = no, "PushFailing", h.Behind
		c.Message = fmt.Sprintf("the peer lacks our newest catalogue, it is tried again and again: %s; see the log of the peer's control plane; %s", h.PushError, offered)
	case !h.Behind.IsZero():
		c.Status, c.Reason, c.Message, c.Since = no, "Pushing",
			fmt.Sprintf("the peer lacks our newest catalogue since %s; %s", age(now, h.Behind), offered), h.Behind
	default:
		c.Status, c.Reason = yes, "Synced"
		c.Message = fmt.Sprintf("the peer has our catalogue %d; %s", h.PushedSequence, offered)
	}
	return c
}

func dataPathReady(now time.Time, p *v1alpha1.MeshPeer, v peerrules.Verdict, h Health) adminapi.Condition {
	c := adminapi.Condition{Type: DataPathReady}
	switch {
	case !v.Live:
		c.Status, c.Reason, c.Message = no, cmp.Or(string(v.Reason), "Unknown"), cmp.Or(v.Message, "nothing passes")
	case h.connecting(now):
		c.Status, c.Reason = unknown, "Connecting"
		c.Message = "the peer's control plane has not answered yet, as is usual in the first seconds of a peering: " +
			h.RefreshError
	case h.RefreshError != "":
		c.Status, c.Reason, c.Since = no, "Unreachable", h.FailingSince
		c.Message = fmt.Sprintf("the peer's control plane does not answer through both gateways: %s: 'isthmus peer probe %s' says which leg is broken", h.RefreshError, p.Name)
	case h.ClosedThere:
		c.Status, c.Reason = no, "ClosedByPeer"
		c.Message = "the peer lets nothing of this mesh through: there this mesh is suspended, or its roots are " +
			"stale: ask the peer's administrators"
	case h.RefreshOK.IsZero():
		c.Status, c.Reason, c.Message = unknown, "NotTriedYet",
			"nothing was sent to the peer since this control plane began"
	default:
		c.Status, c.Reason, c.Message = yes, "Answered", "the peer's control plane answers through both gateways"
	}
	return c
}

func expiring(now time.Time, p *v1alpha1.MeshPeer, state snapshot.PeerState) adminapi.Condition {
	c := adminapi.Condition{
		Type: Expiring, Status: no, Reason: "NotSoon", Message: "neither the peering nor the peer's roots end soon",
	}
	if e := p.Spec.ExpiresAt; e != nil && e.Sub(now) < expiringWithin {
		c.Status, c.Reason = yes, "Peering"
		c.Message = fmt.Sprintf("the peering ends at %s: set a later spec.expiresAt to go on",
			e.UTC().Format(time.RFC3339))
		return c
	}
	if end, soon := RootEnd(now, peerrules.Roots(p, state)); soon {
		c.Status, c.Reason = yes, "Roots"
		c.Message = fmt.Sprintf("the peer's last root ends at %s: its administrators must rotate it before ('isthmus ca rotate' there)", end.UTC().Format(time.RFC3339))
	}
	return c
}

// RootEnd returns when the longest-lived root expires (zero if none can be parsed) and whether that is soon.
func RootEnd(now time.Time, roots []byte) (end time.Time, soon bool) {
	certs, err := peerrules.ParseRoots(roots)
	if err != nil {
		return time.Time{}, false
	}
	var life time.Duration
	for _, c := range certs {
		if c.NotAfter.After(end) {
			end, life = c.NotAfter, c.NotAfter.Sub(c.NotBefore)
		}
	}
	return end, end.Sub(now) < min(expiringWithin, life/3)
}

func suspended(p *v1alpha1.MeshPeer, state snapshot.PeerState, h Health) adminapi.Condition {
	c := adminapi.Condition{Type: Suspended, Status: no, Reason: "NotSuspended", Message: "the peer is not suspended"}
	if p.Spec.Suspend || state.Suspended {
		c.Status, c.Reason, c.Message = yes, "ByCommand",
			fmt.Sprintf("suspended by command: 'isthmus peer resume %s' ends it", p.Name)
	}
	if h.Unwritten != "" {
		c.Message += "; it could not be written yet, and would be lost if the control plane ended now: " + h.Unwritten
	}
	if p.Spec.Suspend {
		c.Reason, c.Message = "ByMeshPeer", "suspended by its MeshPeer: remove spec.suspend to resume"
	}
	return c
}

func revoked(p *v1alpha1.MeshPeer, v peerrules.Verdict) adminapi.Condition {
	if v.Reason != peerrules.Revoked {
		return adminapi.Condition{Type: Revoked, Status: no, Reason: "NotRevoked", Message: "the peer is not revoked"}
	}
	return adminapi.Condition{Type: Revoked, Status: yes, Reason: "ByCommand", Message: v.Message}
}

func age(now, then time.Time) time.Duration {
	return max(now.Sub(then), 0).Truncate(time.Second)
}
