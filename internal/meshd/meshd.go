// Package meshd is the control plane of one mesh. It opens the parts, connects them and runs them.
package meshd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/gate"
	"isthmus.dev/isthmus/internal/meshd/admin"
	"isthmus.dev/isthmus/internal/meshd/agents"
	"isthmus.dev/isthmus/internal/meshd/containment"
	"isthmus.dev/isthmus/internal/meshd/gateways"
	"isthmus.dev/isthmus/internal/meshd/replicas"
	"isthmus.dev/isthmus/internal/meshd/rotation"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/sdnotify"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/store"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/xds"
)

// nodeTTL is the lifetime of certificates of nodes and of the control plane. It is longer than a workload's, so that an
// agent that was cut off for a while can reconnect.
const nodeTTL = 24 * time.Hour

var methods = door.Table(agents.Methods, admin.Methods, federation.Methods, scraping)

// configRetry is the pause before hosts without a virtual address are tried again.
const configRetry = 2 * time.Second

// Daemon is a running control plane.
type Daemon struct {
	cfg     config.Control
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	compile func(*compile.Compiled, *snapshot.Snapshot) *compile.Compiled

	db          state.Store
	authority   *ca.Authority
	identity    *ca.Source
	source      *file.Source
	admitted    *snapshot.Config // the folder's configuration as admitted; owned by followConfig once that runs
	store       *store.Store
	xds         *xds.Server
	federation  *federation.Service
	metrics     *metrics
	standing    *standing.Standing
	pending     *standing.Pending
	agents      *agents.Agents
	containment *containment.Containment
	loop        *spine.Loop
	rotator     *rotation.Rotator
	dialer      gateways.Dialer
	gateways    *gateways.Watch
	admin       *admin.Admin
	replicas    *replicas.Member
	changes     <-chan []state.Change // of the state, from before anything was read
	expired     chan struct{}         // capacity 1: time has changed the meaning of what is known of peers

	door        *door.Door
	refusals    *door.Refusals
	connections *door.Budget
	// build builds a proxy's resources from its view and the configuration that the view was compiled from.
	build func(*view.View, *snapshot.Config) *envoy.Resources
	// stableAfter is how long a proxy must run after it has acknowledged a whole configuration for that to count as
	// good.
	stableAfter time.Duration
}

// Run serves until ctx is done.
func Run(ctx context.Context, cfg config.Control, log *slog.Logger) error {
	return newDaemon(cfg, log).run(ctx)
}

func newDaemon(cfg config.Control, log *slog.Logger) *Daemon {
	return &Daemon{
		cfg: cfg, log: slog.New(newBoundedLog(log.Handler())), now: time.Now, started: time.Now(),
		compile: compile.Next, stableAfter: 5 * time.Second, expired: make(chan struct{}, 1),
		build: func(v *view.View, _ *snapshot.Config) *envoy.Resources { return envoy.Build(v) },
	}
}

func (d *Daemon) run(ctx context.Context) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	defer d.db.Close()
	ls, err := d.listen()
	if err != nil {
		return err
	}
	defer ls.close()
	d.log.Info("control plane is up", "mesh", d.store.Snapshot().Config.Mesh().Name,
		"trust_domain", d.authority.TrustDomain().Name(), "agents", d.cfg.AgentAddress, "socket", d.cfg.Socket)
	if err := sdnotify.Ready(); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		d.source.Run, d.authority.Run, d.federation.Run, d.followConfig, d.loop.Run, d.containment.Run, d.rotator.Run,
		d.door.Run, d.pending.Run, d.gateways.Run, d.agents.Run, d.replicas.Run, d.followState,
		d.refusals.Run, ls.run, d.serveAgents(ls), d.serveSocket(ls), d.servePeering(ls), d.serveHealth(ls),
		d.serveMetrics(ls),
	} {
		g.Go(func() error { return run(ctx) })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// open reads the state and the configuration, and creates every part.
func (d *Daemon) open(ctx context.Context) error {
	var err error
	if d.db, err = openState(ctx, d.cfg); err != nil {
		return err
	}
	d.changes = d.db.Watch(ctx)
	if err := d.openConfig(ctx); err != nil {
		return errors.Join(err, d.db.Close())
	}
	return nil
}

func openState(ctx context.Context, cfg config.Control) (state.Store, error) {
	if cfg.Postgres.Set() {
		return postgres.Open(ctx, cfg.Postgres)
	}
	return sqlite.Open(ctx, cfg.StateFile)
}

func (d *Daemon) openConfig(ctx context.Context) error {
	var err error
	d.source, err = file.New(ctx, file.Config{
		Dir: d.cfg.ConfigDir, Validate: schema.New().Validate, Copies: d.cfg.ConfigCopies, Ages: d.db, Log: d.log,
	})
	if err != nil {
		return err
	}
	first := d.source.Load(ctx)
	td, err := trustDomain(first, d.cfg.ConfigDir)
	if err != nil {
		return err
	}
	return d.openParts(ctx, td, first)
}

func (d *Daemon) openParts(ctx context.Context, td spiffe.TrustDomain, first *snapshot.Config) error {
	var err error
	d.replicas, err = replicas.New(ctx, replicas.Config{
		State: d.db, Status: d.status, Changed: d.replicasChanged,
		Log: d.log,
	})
	if err != nil {
		return err
	}
	d.authority, err = ca.New(ctx, ca.Config{
		TrustDomain: td, Store: d.db, KeyFile: d.cfg.KeyFile, LeafTTL: nodeTTL, Now: d.now, Log: d.log,
		Tidies: d.leads,
		Operator: ca.OperatorFiles{
			RootCert: d.cfg.CA.RootCert, RootKey: d.cfg.CA.RootKey,
			IntermediateCert: d.cfg.CA.IntermediateCert, IntermediateKey: d.cfg.CA.IntermediateKey,
		},
	})
	if err != nil {
		return err
	}
	if d.identity, err = d.authority.Identity(ctx, spiffe.Control(td), d.cfg.Names.DNS...); err != nil {
		return err
	}
	peering, port, err := peeringAddresses(d.cfg)
	if err != nil {
		return err
	}
	d.standing = standing.New(standing.Config{State: d.db, Trusts: d.authority.Trusts, Now: d.now})
	d.store, err = store.Open(ctx, store.Config{
		Kept: d.db, Roots: d.authority.Roots, PeeringAddresses: peering, PeeringPort: port, Now: d.now,
		Ended: d.standing.HasEnded,
	})
	if err != nil {
		return err
	}
	if err := d.store.SetConfig(ctx, d.admit(first)); err != nil {
		return err
	}
	d.refusals = &door.Refusals{Events: d.db, Log: d.log}
	d.pending = &standing.Pending{Log: d.log}
	d.door = door.New(door.Config{
		Methods: methods, Judge: d.standing.Judge, Events: d.db, Refusals: d.refusals, Log: d.log,
	})
	d.metrics = newMetrics()
	if err := d.openSpine(ctx, td); err != nil {
		return err
	}
	return d.openPeering(td, federationName(first))
}

// openSpine creates the loop, its inputs and outputs.
func (d *Daemon) openSpine(ctx context.Context, td spiffe.TrustDomain) error {
	holder := d.replicas.Name
	if d.replicas.Alone() {
		holder = ""
	}
	var err error
	d.agents, err = agents.New(ctx, agents.Config{
		TrustDomain: td, Authority: d.authority, State: d.db, Store: d.store, Standing: d.standing, Pending: d.pending,
		Door: d.door, NodeTTL: nodeTTL, Holder: holder, Lives: d.replicas.Lives, Refused: d.refusals.Add,
		Signed:   d.metrics.signed.Inc,
		Reported: func(node string, r *agentapi.Report) { d.containment.Reported(node, r) }, Log: d.log, Now: d.now,
	})
	if err != nil {
		return err
	}
	d.containment, err = containment.New(ctx, containment.Config{
		State: d.db, Settled: func(proxy string) bool { return d.xds.Settled(proxy) }, Try: d.agents.Ask,
		Build:       d.build,
		Contained:   d.store.SetContained,
		StableAfter: d.stableAfter, Log: d.log, Now: d.now,
	})
	if err != nil {
		return err
	}
	d.xds = xds.New(xds.Config{Identify: d.agents.Identify, Refused: d.containment.Refused, Log: d.log, Now: d.now})
	d.loop = spine.New(spine.Config{
		Source: d.store, Proxies: d.xds, Agents: d.agents, Containment: d.containment, Compile: d.compile,
		Build: d.build,
		Wake:  func() { d.federation.Wake() }, Applied: d.metrics.applied, Built: d.metrics.built, Log: d.log,
	})
	return nil
}

// openPeering creates what concerns peers and the mesh's own gateways, and the administration.
func (d *Daemon) openPeering(td spiffe.TrustDomain, name string) error {
	d.dialer = gateways.Dialer{
		Authority: d.authority, Identity: d.identity, Snapshot: d.store.Snapshot,
		Node: func(ctx context.Context, name, generation string) error {
			_, err := d.standing.Node(ctx, name, generation)
			return err
		},
	}
	var err error
	d.federation, err = federation.New(federation.Config{
		TrustDomain: td, Name: name, Snapshot: d.store.Snapshot, Store: d.db,
		Gateways: d.dialer.Gateways, FromGateway: d.standing.Judge, Door: d.door,
		Identity: func() (*tls.Certificate, error) { return d.identity.GetCertificate(nil) },
		Block:    d.store.Shut, Unblock: d.store.Reopen,
		Stored:  func(peer string) { d.store.ShutStored(peer); d.reread() }, // it may have been ended elsewhere already
		Changed: d.reread, InForce: d.inForce,
		InEffect: func(peer string, written []snapshot.OfferedService) []snapshot.OfferedService {
			return d.loop.Published().InEffect(peer, written)
		},
		Export:  func(peer, sni string) (exported, ready bool) { return d.loop.Published().Export(peer, sni) },
		Unready: func(peer string) []snapshot.OfferedName { return d.loop.Published().Unready(peer) },
		Leading: func() (federation.Store, bool) { return d.replicas.Leads() }, LeadersHealth: d.leadersHealth,
		Log: d.log, Now: d.now, MinRefresh: 2 * time.Second,
	})
	if err != nil {
		return err
	}
	d.metrics.registry.MustRegister(d.federation)
	d.gateways = gateways.New(gateways.Config{
		Dialer: d.dialer, Home: d.federation.CheckGateway, Reports: d.agents.Reports,
		SetSilent: d.store.SetSilentGateways, Now: d.now,
	})
	d.rotator = rotation.New(rotation.Config{
		Authority: d.authority, State: d.db, Snapshot: d.store.Snapshot, Mesh: d.mesh, Reports: d.agents.Reports,
		Holders: func() []xds.Holder { return d.replicas.Holders(d.ownHolders()) }, Unpublished: d.unpublished,
		Leads: d.leads, Delivery: d.federation.BundleDelivery, Log: d.log, Now: d.now,
	})
	d.admin = admin.New(admin.Config{
		Authority: d.authority, State: d.db, Standing: d.standing, Pending: d.pending, Door: d.door,
		Refusals: d.refusals,
		Agents:   d.agents, Proxies: d.xds, Federation: d.federation, Gateways: d.gateways, Rotator: d.rotator,
		Snapshot: d.store.Snapshot, Published: d.loop.Published, Contained: d.containment.Status,
		AgentAddresses: func() []string { return agentAddresses(d.cfg) }, Started: d.started, Log: d.log, Now: d.now,
	})
	return nil
}

// mesh returns the published mesh, or nil if there is none yet.
func (d *Daemon) mesh() *model.Mesh {
	if p := d.loop.Published(); p != nil {
		return p.Mesh
	}
	return nil
}

func trustDomain(cfg *snapshot.Config, dir string) (spiffe.TrustDomain, error) {
	if cfg.Mesh() == nil {
		if len(cfg.Findings) > 0 {
			return spiffe.TrustDomain{}, fmt.Errorf("no Mesh object could be read from %s: %s", dir, cfg.Findings[0])
		}
		return spiffe.TrustDomain{},
			fmt.Errorf("there is no Mesh object in %s: write one (docs/kinds/mesh.md) and start again", dir)
	}
	return spiffe.ParseTrustDomain(cfg.Mesh().Spec.TrustDomain)
}

func federationName(cfg *snapshot.Config) string {
	if f := cfg.Mesh().Spec.Federation; f != nil && f.Name != "" {
		return f.Name
	}
	return cfg.Mesh().Name
}

// followConfig passes the folder's configuration to the store.
func (d *Daemon) followConfig(ctx context.Context) error {
	var waiting *snapshot.Config // has hosts without an address, because the state could not be written
	for {
		var again <-chan time.Time
		if waiting != nil {
			again = time.After(configRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case next := <-d.source.Updates():
			waiting = d.admit(next)
		case <-again:
		}
		if err := d.store.SetConfigSoon(ctx, waiting); err != nil {
			d.log.Error("new names have no virtual address yet", "error", err, "again", configRetry)
			continue
		}
		waiting = nil
	}
}

// admit returns the folder's configuration as far as the gate admits it.
func (d *Daemon) admit(next *snapshot.Config) *snapshot.Config {
	now := *d.store.Snapshot()
	now.Config = cmp.Or(d.admitted, &snapshot.Config{}) // only what comes from the folder
	v := gate.Review(&now, next.Objects.ChangeSince(now.Config.Objects), gate.Who{Source: snapshot.SourceFile})
	d.admitted = v.Admit(now.Config, next)
	return d.admitted
}
