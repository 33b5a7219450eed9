package meshd

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/store"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/xds"
)

// What a command or a registry change may be coalesced into: the first of a burst is served at once, the rest together.
const (
	minPause = 5 * time.Millisecond
	maxPause = 500 * time.Millisecond
	// settleAgain is when a registration that waited, and could not be written, is tried again.
	settleAgain = time.Second
	// reloadRetry is how long a state file that could not be read rests.
	reloadRetry = time.Second
)

var (
	meshGone = finding.Finding{
		Code: "ISM0004", Severity: finding.Error, Object: "Mesh", Message: "the Mesh object is gone; the last one stays in effect",
		Remedy: "write it again (docs/kinds/mesh.md)",
	}
	meshRenamed = finding.Finding{
		Code: "ISM0005", Severity: finding.Error, Object: "Mesh", Field: "spec.trustDomain",
		Message: "the trust domain of a running mesh cannot change: every identity hangs from it; the last Mesh stays in effect",
		Remedy:  "write the former trust domain, or begin a new mesh with its own state file",
	}
)

// loop turns each new snapshot into what every proxy should have.
type loop struct {
	d         *Daemon
	store     *store.Store
	xds       *xds.Server
	log       *slog.Logger
	reloads   chan struct{}
	repeats   chan struct{}
	published atomic.Pointer[published]

	// of the goroutine in run:
	generation uint64
	compiled   *compile.Compiled
	views      map[string]*view.View
	own        ownSets
	plans      map[string]plan              // of proxies that are told something else than the mesh as it stands
	contained  map[string]*compile.Compiled // by the objects that are closed in it
	failed     map[string]bool              // proxies whose configuration could not be built
}

// published is what is in force.
type published struct {
	snapshot   *snapshot.Snapshot
	mesh       *model.Mesh
	briefing   *briefing
	findings   []finding.Finding
	generation uint64

	once  sync.Once // guards what follows
	shown []finding.Finding
}

// allFindings are the findings, and what policies name and nobody is: worked out for the first who asks.
func (p *published) allFindings() []finding.Finding {
	p.once.Do(func() {
		p.shown = slices.Concat(p.findings, compile.Unmatched(p.snapshot, p.mesh), compile.Crossing(p.snapshot, p.mesh))
		finding.Sort(p.shown)
	})
	return p.shown
}

// with is the same with other findings.
func (p *published) with(findings []finding.Finding) *published {
	finding.Sort(findings)
	return &published{snapshot: p.snapshot, mesh: p.mesh, briefing: p.briefing, findings: findings, generation: p.generation}
}

func newLoop(d *Daemon) *loop {
	return &loop{
		d: d, store: d.store, xds: d.xds, log: d.log, reloads: make(chan struct{}, 1), repeats: make(chan struct{}, 1),
		views: map[string]*view.View{}, own: ownSets{},
	}
}

// reload asks for peers and invitations to be read again. It never blocks.
func (l *loop) reload() {
	select {
	case l.reloads <- struct{}{}:
	default:
	}
}

// again asks for the spine to be run again, though nothing is known anew: what some proxy is to be told has changed. It
// never blocks.
func (l *loop) again() {
	select {
	case l.repeats <- struct{}{}:
	default:
	}
}

func (l *loop) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.reloads:
			l.reread(ctx)
			continue
		case <-l.store.Changed():
		case <-l.repeats:
		}
		if err := l.store.Settle(ctx); err != nil {
			l.log.Error("workloads that waited for a name or an address are not registered yet", "error", err)
			time.AfterFunc(settleAgain, l.again)
		}
		begun := time.Now()
		l.apply(ctx, l.store.Snapshot())
		took := time.Since(begun)
		l.d.metrics.applied(took)
		select {
		case <-ctx.Done():
		case <-time.After(min(max(took, minPause), maxPause)):
		}
	}
}

// reread takes in what the state file says now. What cannot be read is read again until it can be: a suspension that is
// written is not left without effect.
func (l *loop) reread(ctx context.Context) {
	if err := l.store.Reload(ctx); err != nil && ctx.Err() == nil {
		l.log.Error("state not read, trying again", "error", err, "again", reloadRetry)
		time.AfterFunc(reloadRetry, l.reload)
	}
}

// apply is the spine: snapshot → mesh → views → resources → the difference. A fault of ours on the way leaves in force
// what was, and is said loudly; the next change is tried from the beginning.
func (l *loop) apply(ctx context.Context, snap *snapshot.Snapshot) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		l.log.Error("configuration not applied, what was in force stays", "fault", fault, "stack", string(debug.Stack()))
		l.compiled = nil
		if before := l.published.Load(); before != nil {
			l.published.Store(before.with(append(slices.Clone(snap.Config.Findings), faulty(fault))))
		}
	}()
	plans, replanned := l.d.containment.plans(ctx, snap.Config)
	l.compiled = l.d.compile(l.compiled, snap)
	mesh := l.compiled.Mesh
	findings := slices.Concat(snap.Config.Findings, l.compiled.Findings, snap.Registry.Clashes, l.d.agents.findings(),
		l.d.containment.findings(snap.Config))
	finding.Sort(findings)
	if mesh != nil {
		findings = append(findings, endpointFindings(snap, mesh)...)
		finding.Sort(findings)
	}
	before := l.published.Load()
	if mesh == nil {
		l.log.Error("configuration means no mesh, the last one stays in force", "findings", len(findings))
		if before != nil {
			l.published.Store(before.with(findings))
		}
		return
	}
	l.generation++
	now := &published{
		snapshot: snap, mesh: mesh, briefing: newBriefing(mesh), findings: findings, generation: l.generation,
	}
	l.published.Store(now)
	l.report(before, findings)
	changed := l.publishEndpoints(before, mesh)
	if before != nil && l.compiled.OnlyEndpoints && !replanned {
		l.publishOwn(changed, mesh)
		l.d.containment.stands(snap.Config, plans)
		if !sameReadiness(before.mesh, mesh) {
			l.d.federation.Wake()
		}
		return // nobody is told anything else
	}
	if faults := l.publishProxies(ctx, before, snap, plans); len(faults) > 0 {
		l.published.Store(now.with(append(faults, findings...)))
	}
	l.publishOwn(changed, mesh)
	l.d.containment.stands(snap.Config, plans)
	l.d.agents.instruct(before, now.briefing)
	l.d.federation.Wake()
}

func faulty(fault any) finding.Finding {
	return finding.Finding{
		Code: "ISM0205", Severity: finding.Error,
		Message: fmt.Sprintf("Isthmus fails on this configuration, so what was in force stays: %v", fault),
		Remedy:  "this is a fault of Isthmus: report it with the log, and take back the last change meanwhile",
	}
}

// report logs findings that were not there before.
func (l *loop) report(before *published, findings []finding.Finding) {
	known := map[string]bool{}
	if before != nil {
		for _, f := range before.findings {
			known[f.String()] = true
		}
	}
	for _, f := range findings {
		if !known[f.String()] && f.Severity != finding.Info {
			l.log.Warn("finding", "code", f.Code, "finding", f.String())
		}
	}
}

// publishEndpoints sends the endpoint sets that changed, to those who subscribe to them and nobody else.
func (l *loop) publishEndpoints(before *published, mesh *model.Mesh) (sets []model.EndpointSet) {
	changed := map[string]*envoy.Resource{}
	for set, eps := range mesh.Endpoints {
		if before != nil {
			if old, ok := before.mesh.Endpoints[set]; ok && slices.Equal(old, eps) {
				continue
			}
		}
		changed[envoy.SetName(set)] = envoy.Endpoints(set, eps)
		sets = append(sets, set)
	}
	if before != nil {
		for set := range before.mesh.Endpoints {
			if _, ok := mesh.Endpoints[set]; !ok {
				changed[envoy.SetName(set)] = nil
				sets = append(sets, set)
			}
		}
	}
	if len(changed) > 0 {
		l.xds.PublishEndpoints(changed)
	}
	return sets
}

// publishProxies rebuilds what those proxies are told whose view changed.
func (l *loop) publishProxies(
	ctx context.Context, before *published, snap *snapshot.Snapshot, plans map[string]plan,
) (faults []finding.Finding) {
	mesh := l.compiled.Mesh
	for _, name := range l.xds.Known() {
		if mesh.Proxies[name] == nil {
			l.xds.Forget(name)
			l.xds.PublishEndpoints(l.own.replace(l.views[name], nil, mesh))
			delete(l.views, name)
		}
	}
	l.d.containment.retain(ctx, mesh.Proxies)
	contained := map[string]*compile.Compiled{}
	built, same := 0, before != nil && sameSurroundings(before.mesh, mesh)
	failed := map[string]bool{}
	for name, p := range mesh.Proxies {
		plan, planned := plans[name]
		_, wasPlanned := l.plans[name]
		if same && !planned && !wasPlanned && !l.failed[name] && sameWorkloads(before.mesh.Proxies[name], p) {
			continue
		}
		news, fault := l.publishProxy(name, snap, plan, planned || wasPlanned, contained)
		switch {
		case fault != nil:
			failed[name] = true
			faults = append(faults, faultyProxy(name, fault))
		case news:
			built++
		}
	}
	l.plans, l.contained, l.failed = plans, contained, failed
	l.d.metrics.built(built)
	return faults
}

// publishProxy rebuilds what one proxy is told and says whether that is new. A fault of ours there is that proxy's
// alone: it goes on with what it has. replanned says that containment may wait to hear what the proxy is told, new or
// not.
func (l *loop) publishProxy(
	name string, snap *snapshot.Snapshot, plan plan, replanned bool, contained map[string]*compile.Compiled,
) (news bool, fault any) {
	defer func() {
		if fault = recover(); fault != nil {
			l.log.Error("a proxy's configuration not built, it keeps what it has", "proxy", name, "fault", fault,
				"stack", string(debug.Stack()))
		}
	}()
	c := l.compiled
	if plan.config != nil || len(plan.closed) > 0 {
		c = l.compileFor(snap, plan, contained)
	}
	if c.Mesh == nil {
		return false, nil
	}
	v := view.For(c.Mesh, name)
	if v == nil {
		return false, nil
	}
	equal := view.Equal(l.views[name], v)
	if equal && !replanned {
		return false, nil
	}
	res := l.d.build(v, c.Snapshot.Config)
	l.d.containment.told(name, snap.Config, plan, res)
	if equal {
		return false, nil
	}
	l.xds.PublishEndpoints(l.own.replace(l.views[name], v, l.compiled.Mesh))
	l.views[name] = v
	l.xds.Publish(name, l.generation, res)
	return true, nil
}

func faultyProxy(name string, fault any) finding.Finding {
	return finding.Finding{
		Code: "ISM0206", Severity: finding.Error, Object: "proxy " + name,
		Message: fmt.Sprintf("Isthmus fails to build its configuration, so it keeps what it has: %v", fault),
		Remedy:  "this is a fault of Isthmus: report it with the log, and take back the last change meanwhile",
	}
}

// compileFor is the mesh for those proxies that cannot live with it as it stands: of an earlier configuration, or with
// some objects closed. All else, who is a peer and which nodes there are, is as it is now.
func (l *loop) compileFor(snap *snapshot.Snapshot, p plan, contained map[string]*compile.Compiled) *compile.Compiled {
	id := p.id()
	if contained[id] == nil {
		part := *snap
		part.Config = contain.Close(cmp.Or(p.config, snap.Config), p.closed, quarantineReason)
		contained[id] = compile.Next(l.contained[id], &part)
	}
	return contained[id]
}

// sameSurroundings says whether what every view holds beside its workloads is as it was.
func sameSurroundings(a, b *model.Mesh) bool {
	return a.Domain == b.Domain && a.AllowAny == b.AllowAny && a.CertificateTTL == b.CertificateTTL && a.HandOver == b.HandOver && maps.EqualFunc(a.Roots, b.Roots, bytes.Equal)
}

// sameWorkloads says whether a node's workloads are the very ones that they were: what did not change is not compiled anew.
func sameWorkloads(a, b *model.Proxy) bool {
	return a != nil && a.Gateway == nil && b.Gateway == nil && slices.Equal(a.Workloads, b.Workloads)
}
