// Package spine runs the control plane's pipeline: each snapshot is compiled, reduced to what each proxy may know,
// built and published.
package spine

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/meshd/containment"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
)

// Coalescing of changes: the first of a burst is processed at once, the rest together.
const (
	minPause = 5 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// Source provides snapshots.
type Source interface {
	Snapshot() *snapshot.Snapshot
	Changed() <-chan struct{}
	Settle(context.Context) error
}

// Proxies receive the differences to what they have.
type Proxies interface {
	Known() []string
	Forget(proxy string)
	Publish(proxy string, generation uint64, res *envoy.Resources)
	PublishEndpoints(changed map[string]*envoy.Resource)
}

// Agents receive what they need besides Envoy's configuration.
type Agents interface {
	Instruct(*model.Mesh)
}

// Config of a Loop. Fields without a default are required.
type Config struct {
	Source      Source
	Proxies     Proxies
	Agents      Agents
	Containment *containment.Containment
	// Wake is called when there may be something new for peers.
	Wake func()
	// Applied is called with the processing time of a snapshot, Built with the number of rebuilt proxies.
	Applied func(time.Duration)
	Built   func(proxies int)
	// Compile and Build are steps of the pipeline. Default: compile.Next and envoy.Build.
	Compile func(*compile.Compiled, *snapshot.Snapshot) *compile.Compiled
	Build   func(*view.View, *snapshot.Config) *envoy.Resources
	Log     *slog.Logger
}

// Loop turns each new snapshot into what every proxy should have.
type Loop struct {
	Config
	repeats   chan struct{}
	published atomic.Pointer[Published]

	// owned by the goroutine in Run:
	settling   chan error // receives the result of settling while that takes long; nil otherwise
	generation uint64
	compiled   *compile.Compiled
	views      map[string]*view.View
	own        ownSets
	plans      map[string]containment.Plan  // of proxies whose configuration differs
	contained  map[string]*compile.Compiled // by the objects closed in it
	failed     map[string]finding.Finding   // proxies whose configuration could not be built, with the finding
}

// New returns a Loop. It publishes nothing before Run.
func New(c Config) *Loop {
	if c.Compile == nil {
		c.Compile = compile.Next
	}
	if c.Build == nil {
		c.Build = func(v *view.View, _ *snapshot.Config) *envoy.Resources { return envoy.Build(v) }
	}
	return &Loop{
		Config: c, repeats: make(chan struct{}, 1), views: map[string]*view.View{}, own: ownSets{},
	}
}

// Published returns what is in effect; nil if there is nothing yet.
func (l *Loop) Published() *Published { return l.published.Load() }

// again requests another run, even without new data. It never blocks.
func (l *Loop) again() {
	select {
	case l.repeats <- struct{}{}:
	default:
	}
}

// Run publishes each snapshot until ctx is done.
func (l *Loop) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Source.Changed():
		case <-l.Containment.Changed():
		case <-l.repeats:
		case err := <-l.settling:
			l.settled(err)
			if err == nil {
				l.again() // more may have become free meanwhile
			}
			continue
		}
		l.settle(ctx)
		begun := time.Now()
		l.apply()
		took := time.Since(begun)
		l.Applied(took)
		select {
		case <-ctx.Done():
		case <-time.After(min(max(took, minPause), maxPause)):
		}
	}
}

// apply runs the pipeline: snapshot → mesh → views → resources → differences. After a panic, what was in effect stays,
// the panic is reported, and the next change starts from scratch.
func (l *Loop) apply() {
	snap := l.Source.Snapshot()
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		l.Log.Error("configuration not applied, the previous one stays in force", "fault", fault, "stack",
			string(debug.Stack()))
		l.compiled = nil
		if before := l.published.Load(); before != nil {
			l.published.Store(before.with(snap.Config.Report(snap.Config.Findings, l.faults(), []finding.Finding{
				finding.New("ISM0205", kind.Key{}, "",
					fmt.Sprintf("Isthmus fails on this configuration, so what was in force stays: %v", fault)),
			})))
		}
	}()
	l.Containment.Release(snap.Config)
	snap = l.Source.Snapshot() // includes what was released
	plans, replanned := l.Containment.Plans()
	l.compiled = l.Compile(l.compiled, snap)
	mesh := l.compiled.Mesh
	findings := l.findings()
	before := l.published.Load()
	if mesh == nil {
		l.Log.Error("configuration means no mesh, the last one stays in force", "findings", len(findings))
		if before != nil {
			l.published.Store(before.with(findings))
		}
		return
	}
	l.generation++
	now := &Published{Snapshot: snap, Mesh: mesh, Findings: findings, Generation: l.generation, compiled: l.compiled}
	l.published.Store(now)
	l.Containment.Published(l.compiled)
	l.report(before, findings)
	changed := l.publishEndpoints(before)
	if before != nil && l.compiled.OnlyEndpoints && !replanned {
		l.publishOwn(changed, mesh)
		l.Containment.Unchanged(snap.Config, plans)
		if !sameReadiness(before.Mesh, mesh) {
			l.Wake()
		}
		return // nobody gets anything new
	}
	failed := l.failed
	l.publishProxies(before, snap, plans)
	if !maps.Equal(failed, l.failed) {
		l.published.Store(now.with(l.findings()))
	}
	l.publishOwn(changed, mesh)
	l.Containment.Unchanged(snap.Config, plans)
	l.Agents.Instruct(mesh)
	l.Wake()
}

// findings returns the findings about the snapshot, including proxies for which Isthmus fails.
func (l *Loop) findings() []finding.Finding {
	known := l.compiled.Known()
	if len(l.failed) == 0 {
		return known
	}
	return l.compiled.Snapshot.Config.Report(known, l.faults())
}

func (l *Loop) faults() []finding.Finding { return slices.Collect(maps.Values(l.failed)) }

// report logs new findings.
func (l *Loop) report(before *Published, findings []finding.Finding) {
	known := map[finding.Finding]bool{}
	if before != nil {
		if slices.Equal(before.Findings, findings) {
			return
		}
		for _, f := range before.Findings {
			known[f] = true
		}
	}
	for _, f := range findings {
		if !known[f] && f.Severity != finding.Info {
			l.Log.Warn("finding", "code", f.Code, "finding", f.String())
		}
	}
}

// publishEndpoints sends changed endpoint sets to their subscribers.
func (l *Loop) publishEndpoints(before *Published) []model.EndpointSet {
	var was *compile.Compiled
	if before != nil {
		was = before.compiled
	}
	sets := l.compiled.ChangedEndpoints(was)
	changed := make(map[string]*envoy.Resource, len(sets))
	for _, set := range sets {
		changed[envoy.SetName(set)] = nil // removed
		if eps, ok := l.compiled.Mesh.Endpoints[set]; ok {
			changed[envoy.SetName(set)] = envoy.Endpoints(set, eps)
		}
	}
	if len(changed) > 0 {
		l.Proxies.PublishEndpoints(changed)
	}
	return sets
}

// publishProxies rebuilds the proxies whose view has changed.
func (l *Loop) publishProxies(
	before *Published, snap *snapshot.Snapshot, plans map[string]containment.Plan,
) {
	mesh := l.compiled.Mesh
	for _, name := range l.Proxies.Known() {
		if mesh.Proxies[name] == nil {
			l.Proxies.Forget(name)
			l.Proxies.PublishEndpoints(l.own.replace(l.views[name], nil, mesh))
			delete(l.views, name)
		}
	}
	l.Containment.Retain(mesh.Proxies)
	contained := map[string]*compile.Compiled{}
	built, same := 0, before != nil && view.SameGlobals(before.Mesh, mesh)
	failed := map[string]finding.Finding{}
	for name, p := range mesh.Proxies {
		plan, planned := plans[name]
		_, wasPlanned := l.plans[name]
		_, hadFailed := l.failed[name]
		if same && !planned && !wasPlanned && !hadFailed && view.SameWorkloads(before.Mesh.Proxies[name], p) {
			continue
		}
		news, fault := l.publishProxy(name, snap, plan, planned || wasPlanned, contained)
		switch {
		case fault != nil:
			failed[name] = finding.New("ISM0206", kind.Proxy(name), "",
				fmt.Sprintf("Isthmus fails to build its configuration, so it keeps what it has: %v", fault))
		case news:
			built++
		}
	}
	l.plans, l.contained, l.failed = plans, contained, failed
	l.Built(built)
}

// publishProxy rebuilds one proxy and reports whether its resources changed. A panic affects only that proxy, which
// keeps what it has. replanned means that containment may need to know what the proxy is sent, changed or not.
func (l *Loop) publishProxy(
	name string, snap *snapshot.Snapshot, plan containment.Plan, replanned bool, contained map[string]*compile.Compiled,
) (news bool, fault any) {
	defer func() {
		if fault = recover(); fault != nil {
			l.Log.Error("a proxy's configuration could not be built, it keeps the previous one", "proxy", name, "fault", fault,
				"stack", string(debug.Stack()))
		}
	}()
	c := l.compiled
	if plan.Config != nil || len(plan.Closed) > 0 {
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
	res := l.Build(v, c.Snapshot.Config)
	l.Containment.Sent(name, snap.Config, plan, res)
	if equal {
		return false, nil
	}
	l.Proxies.PublishEndpoints(l.own.replace(l.views[name], v, l.compiled.Mesh))
	l.views[name] = v
	l.Proxies.Publish(name, l.generation, res)
	return true, nil
}

// compileFor returns the mesh for proxies that are contained: from an earlier configuration, or with some objects
// closed. Everything else, such as peers and nodes, is current.
func (l *Loop) compileFor(
	snap *snapshot.Snapshot, p containment.Plan, contained map[string]*compile.Compiled,
) *compile.Compiled {
	id := p.ID()
	if contained[id] == nil {
		part := *snap
		part.Config = contain.Close(cmp.Or(p.Config, snap.Config), p.Closed, containment.Reason)
		contained[id] = compile.Next(l.contained[id], &part)
	}
	return contained[id]
}
