// Package rotation drives the replacement of a mesh's root, step by step, and waits for participants that have not
// followed.
package rotation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/times"
	"isthmus.dev/isthmus/internal/xds"
)

const (
	rotationTick = 500 * time.Millisecond
	// rotationSettle is how long nobody must be waited for before a step is taken. What an agent or Envoy has just
	// acknowledged is in use by then.
	rotationSettle = 3 * time.Second
	// replacedWithin is how long connected agents take to replace their certificates (node/identity spreads them).
	replacedWithin = 12 * time.Second
	// peerGrace is for a peer that fetched the bundle but cannot say whether its proxies use it: an older version of
	// Isthmus.
	peerGrace = 30 * time.Second
)

// Authority is the mesh's certificate authority.
type Authority interface {
	Rotation() ca.Rotation
	AdvanceRotation(ctx context.Context, from ca.Step, passed []string) (ca.Rotation, error)
	TrustDomain() spiffe.TrustDomain
	Roots() []byte
}

// State lists the issued certificates.
type State interface {
	Nodes(context.Context) ([]state.Node, error)
	CertsUnder(ctx context.Context, root string, now time.Time) ([]state.CertUse, error)
}

// Config of a Rotator. All fields are required.
type Config struct {
	Authority Authority
	State     State
	Snapshot  func() *snapshot.Snapshot
	// Mesh returns the published mesh; nil if there is none yet.
	Mesh func() *model.Mesh
	// Reports returns the last reports of connected agents, by node.
	Reports func() map[string]agentapi.Report
	// Holders returns the proxies that should have this mesh's own roots. Unpublished returns the control planes that
	// have not published both roots.
	Holders     func() []xds.Holder
	Unpublished func(roots []byte) []string
	// Leads reports whether this control plane takes the steps.
	Leads func() bool
	// Delivery is how far a peer is with this mesh's roots.
	Delivery func(ctx context.Context, peer string) (federation.BundleDelivery, error)
	Log      *slog.Logger
	Now      func() time.Time
}

// Rotator advances a root rotation. It derives everything from the current state each time, so it can start at any
// step.
type Rotator struct {
	Config

	mu      sync.Mutex // guards the fields below
	clear   time.Time  // since when nobody is waited for
	clearOf ca.Step
	failure string
}

// New returns a Rotator.
func New(c Config) *Rotator { return &Rotator{Config: c} }

// Run checks repeatedly until ctx is done.
func (r *Rotator) Run(ctx context.Context) error {
	retry.Every(ctx, rotationTick, func(ctx context.Context) {
		if rot := r.Authority.Rotation(); rot.InProgress() && r.Leads() {
			r.look(ctx, rot)
		}
	})
	return nil
}

// look takes the next step if nobody has been waited for for a while.
func (r *Rotator) look(ctx context.Context, rot ca.Rotation) {
	waits, err := r.Waits(ctx, rot)
	if err == nil && r.settled(rot.Step, len(waits) == 0, r.Now()) {
		_, err = r.Authority.AdvanceRotation(ctx, rot.Step, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.failure
	r.failure = ""
	if err != nil && ctx.Err() == nil {
		r.failure = err.Error()
		if before != r.failure { // log once: it is retried all the time
			r.Log.Error("root rotation does not advance", "step", string(rot.Step), "error", err)
		}
	}
}

func (r *Rotator) settled(step ca.Step, clear bool, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !clear {
		r.clear = time.Time{}
		return false
	}
	if r.clear.IsZero() || r.clearOf != step {
		r.clear, r.clearOf = now, step
	}
	return step == ca.Distributed || step == ca.Drained || now.Sub(r.clear) >= rotationSettle
}

// Force goes on without those who are waited for now.
func (r *Rotator) Force(ctx context.Context) error {
	rot := r.Authority.Rotation()
	if !rot.InProgress() {
		return ca.ErrNotRotating
	}
	waits, err := r.Waits(ctx, rot)
	if err != nil {
		return err
	}
	var passed []string
	for _, w := range waits {
		passed = append(passed, fmt.Sprintf("%s: %s %s", rot.Step, w.What, w.Name))
		r.Log.Warn("root rotation continues without a participant", "step", string(rot.Step), "what", w.What, "name", w.Name,
			"why", w.Why)
	}
	_, err = r.Authority.AdvanceRotation(ctx, rot.Step, passed)
	return err
}

// Waits returns the participants for whom the current step waits.
func (r *Rotator) Waits(ctx context.Context, rot ca.Rotation) ([]adminapi.CAWait, error) {
	switch rot.Step {
	case ca.Prepared:
		return r.undistributed(ctx, rot)
	case ca.Activated:
		uses, err := r.State.CertsUnder(ctx, rot.Old, r.Now())
		if err != nil {
			return nil, err
		}
		nodes, err := r.State.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		return undrained(rot, nodes, uses, r.Reports(), r.Now()), nil
	}
	return nil, nil
}

// undistributed returns those that do not trust both roots yet.
func (r *Rotator) undistributed(ctx context.Context, rot ca.Rotation) ([]adminapi.CAWait, error) {
	mesh := r.Mesh()
	td := r.Authority.TrustDomain().Name()
	if mesh == nil || string(mesh.Roots[td]) != string(r.Authority.Roots()) {
		return []adminapi.CAWait{{What: "control plane", Name: td, Why: "has not published both roots yet"}}, nil
	}
	var waits []adminapi.CAWait
	for _, name := range r.Unpublished(r.Authority.Roots()) {
		waits = append(waits, adminapi.CAWait{
			What: "control plane", Name: name,
			Why: "has not published both roots yet",
		})
	}
	nodes, err := r.State.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	holders := slices.DeleteFunc(r.Holders(), func(h xds.Holder) bool {
		proxy := mesh.Proxies[h.Proxy]
		// a node whose workloads all have their own Envoy
		return proxy != nil && len(proxy.Sidecars) > 0 && len(proxy.Workloads) == 0
	})
	waits = append(waits, untrusting(rot, nodes, r.Reports(), holders)...)
	snap := r.Snapshot()
	for _, i := range snap.Invites {
		waits = append(waits, adminapi.CAWait{
			What: "invitation", Name: i.Peer, Why: "is open and pins the old root",
			Until: i.Expires,
		})
	}
	verdicts := peerrules.All(snap, td)
	for _, mp := range snapshot.Of[*v1alpha1.MeshPeer](snap.Config) {
		if !verdicts[mp.Name].Control {
			continue // nothing passes
		}
		told, err := r.Delivery(ctx, mp.Name)
		if err != nil {
			return nil, err
		}
		if why := peerLacks(told, r.Now()); why != "" {
			waits = append(waits, adminapi.CAWait{What: "peer", Name: mp.Name, Why: why})
		}
	}
	return waits, nil
}

// peerLacks returns why a peer is waited for, or "".
func peerLacks(t federation.BundleDelivery, now time.Time) string {
	switch {
	case t.InForce:
		return ""
	case t.ByHand:
		return "takes this mesh's roots from its own files only: give it a new isthmus peer manifest"
	case t.Fetched.IsZero() && t.Error != "":
		return "has not fetched the new bundle, and cannot be told of it: " + t.Error
	case t.Fetched.IsZero():
		return "has not fetched the new bundle yet"
	case t.Error != "" && now.Sub(t.Fetched) >= peerGrace:
		return ""
	case t.Error != "":
		return "has fetched the new bundle, and cannot be asked whether its gateways have it: " + t.Error
	}
	return "has fetched the new bundle; its gateways have not all acknowledged it"
}

// untrusting returns the nodes whose agent or Envoys do not trust both roots yet.
func untrusting(
	rot ca.Rotation, nodes []state.Node, reports map[string]agentapi.Report, holders []xds.Holder,
) []adminapi.CAWait {
	var waits []adminapi.CAWait
	for _, n := range nodes {
		if !n.Revoked.IsZero() {
			continue
		}
		report, connected := reports[n.Name]
		if !connected || !slices.Contains(report.Roots, rot.New) {
			why := "its agent has not taken up the new root"
			if !connected {
				why = "its agent is not connected"
			}
			waits = append(waits, adminapi.CAWait{What: string(n.Role), Name: n.Name, Why: why})
			continue
		}
		for _, h := range holders {
			if h.Proxy == n.Name || strings.HasPrefix(h.Proxy, n.Name+"/") { // a workload's own
				if why := holderLacks(h); why != "" {
					waits = append(waits, adminapi.CAWait{What: string(n.Role), Name: h.Proxy, Why: why})
				}
			}
		}
	}
	return waits
}

// holderLacks returns why an Envoy is waited for, or "".
func holderLacks(h xds.Holder) string {
	switch {
	case !h.Connected:
		return "its Envoy is not connected"
	case h.Nack != "":
		return "its Envoy refuses its secrets: " + h.Nack
	case !h.Acked:
		return "its Envoy has not acknowledged the new root"
	}
	return ""
}

// undrained returns those that still have certificates under the old root.
func undrained(
	rot ca.Rotation, nodes []state.Node, uses []state.CertUse, reports map[string]agentapi.Report, now time.Time,
) []adminapi.CAWait {
	var waits []adminapi.CAWait
	for _, n := range nodes {
		if !n.Revoked.IsZero() {
			continue
		}
		if report, connected := reports[n.Name]; connected {
			if old, until := IssuedUnder(rot, report.Certs, now); len(old) > 0 {
				waits = append(waits, adminapi.CAWait{
					What: string(n.Role), Name: n.Name,
					Why:   "replaces its certificates: " + strings.Join(old, " "),
					Until: times.Earlier(until, rot.Since.Add(replacedWithin)),
				})
			}
			continue
		}
		if until := lastUse(uses, func(u state.CertUse) bool { return u.Node == n.Name }); !until.IsZero() {
			waits = append(waits, adminapi.CAWait{
				What: string(n.Role), Name: n.Name,
				Why: "its agent is not connected, and has certificates under the old root", Until: until,
			})
		}
	}
	for _, u := range uses {
		id, err := spiffe.Parse(u.SPIFFEID)
		if u.Node != "" || err != nil {
			continue
		}
		if name, ok := spiffe.AdminName(id); ok {
			waits = append(waits, adminapi.CAWait{
				What: "administrator", Name: name,
				Why:   "has credentials under the old root: make new ones (isthmus admin cert) before they end",
				Until: u.NotAfter,
			})
		}
	}
	return waits
}

// IssuedUnder returns the names of valid certificates under the old root, and when the last of them expires.
// Certificates under even older roots are not accepted anywhere and are not waited for.
func IssuedUnder(rot ca.Rotation, certs []agentapi.CertState, now time.Time) (ids []string, until time.Time) {
	for _, c := range certs {
		if c.Root == rot.Old && now.Before(c.NotAfter) {
			ids = append(ids, c.SPIFFEID)
			until = times.Later(until, c.NotAfter)
		}
	}
	if len(ids) > 3 {
		ids = append(ids[:3:3], fmt.Sprintf("and %d more", len(ids)-3))
	}
	return ids, until
}

func lastUse(uses []state.CertUse, of func(state.CertUse) bool) (until time.Time) {
	for _, u := range uses {
		if of(u) {
			until = times.Later(until, u.NotAfter)
		}
	}
	return until
}

// Failure returns what went wrong at the last look, empty when nothing did.
func (r *Rotator) Failure() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// Expected returns when a step ends at the latest.
func Expected(rot ca.Rotation, waits []adminapi.CAWait) (end time.Time) {
	if !rot.InProgress() {
		return end
	}
	end = rot.Since
	for _, w := range waits {
		if w.Until.IsZero() {
			return time.Time{}
		}
		end = times.Later(end, w.Until)
	}
	return end.Add(rotationSettle)
}
