// Package meshd is the control plane of one mesh: it puts the parts together and runs the one loop that everything hangs
// from — snapshot, compile, view, build, publish.
package meshd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/sdnotify"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/store"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/xds"
)

// nodeTTL is the life of a node's own certificate and of the control plane's: longer than a workload's, so that an agent
// that was cut off for a while can still come back by itself.
const nodeTTL = 24 * time.Hour

// configRetry is how long names wait for an address that could not be given.
const configRetry = 2 * time.Second

// Daemon is one running control plane.
type Daemon struct {
	cfg     config.Control
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	compile func(*compile.Compiled, *snapshot.Snapshot) *compile.Compiled

	db           state.Store
	authority    *ca.Authority
	identity     *ca.Source
	source       *file.Source
	store        *store.Store
	xds          *xds.Server
	federation   *federation.Service
	metrics      *metrics
	agents       *agents
	openings     *openings
	loop         *loop
	rotator      *rotator
	gatewayWatch *gatewayWatch

	door        *door.Door
	refusals    *door.Refusals
	connections *door.Budget
	containment *containment
	// build makes what a proxy is told, of what its view was compiled from.
	build func(*view.View, *snapshot.Config) *envoy.Resources
	// livedAfter is how long a proxy must have gone on with a configuration, after it acknowledged all of it, to have
	// lived with it.
	livedAfter time.Duration
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg config.Control, log *slog.Logger) error {
	return newDaemon(cfg, log).run(ctx)
}

func newDaemon(cfg config.Control, log *slog.Logger) *Daemon {
	return &Daemon{
		cfg: cfg, log: slog.New(newBoundedLog(log.Handler())), now: time.Now, started: time.Now(),
		compile: compile.Next, livedAfter: 5 * time.Second,
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
	d.log.Info("control plane is up", "mesh", d.store.Snapshot().Config.Mesh.Name,
		"trustDomain", d.authority.TrustDomain().Name(), "agents", d.cfg.AgentAddress, "socket", d.cfg.Socket)
	if err := sdnotify.Ready(); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		d.source.Run, d.authority.Run, d.federation.Run, d.followConfig, d.loop.run, d.containment.run, d.rotator.run,
		d.openings.run, d.agents.endings.run, d.gatewayWatch.run, d.watchHeartbeats,
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

// open reads the state and the configuration, and makes every part.
func (d *Daemon) open(ctx context.Context) error {
	var err error
	if d.db, err = sqlite.Open(ctx, d.cfg.StateFile); err != nil {
		return err
	}
	if err := d.openConfig(ctx); err != nil {
		return errors.Join(err, d.db.Close())
	}
	return nil
}

func (d *Daemon) openConfig(ctx context.Context) error {
	var err error
	d.source, err = file.New(ctx, file.Config{
		Dir: d.cfg.ConfigDir, Validate: schema.New().Validate, Copies: d.cfg.StateFile + ".config", Ages: d.db, Log: d.log,
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
	d.authority, err = ca.New(ctx, ca.Config{
		TrustDomain: td, Store: d.db, KeyFile: d.cfg.KeyFile, LeafTTL: nodeTTL, Now: d.now, Log: d.log,
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
	d.store, err = store.Open(ctx, store.Config{Kept: d.db, Roots: d.authority.Roots, PeeringAddresses: peering, PeeringPort: port, Now: d.now})
	if err != nil {
		return err
	}
	if err := d.store.SetConfig(ctx, first); err != nil {
		return err
	}
	d.refusals = &door.Refusals{Events: d.db, Log: d.log}
	d.door = door.New(methods, d.judgeCaller, d.db, d.refusals, d.log)
	d.metrics = newMetrics()
	d.agents = newAgents(d)
	if err := d.agents.revokedBefore(ctx); err != nil {
		return err
	}
	d.openings = newOpenings(d.judgeShown)
	if d.containment, err = newContainment(ctx, d); err != nil {
		return err
	}
	d.xds = xds.New(xds.Config{Identify: d.agents.identify, Refused: d.containment.refused, Log: d.log, Now: d.now})
	d.loop = newLoop(d)
	d.rotator = &rotator{d: d}
	d.gatewayWatch = newGatewayWatch(d)
	d.federation, err = federation.New(federation.Config{
		TrustDomain: td, Name: federationName(first), Snapshot: d.store.Snapshot, Store: d.db,
		Gateways: d.gateways, FromGateway: d.judge,
		Identity: func() (*tls.Certificate, error) { return d.identity.GetCertificate(nil) },
		Shut:     d.store.Shut, Reopen: d.store.Reopen, Changed: func() { d.loop.reload() }, InForce: d.inForce,
		InEffect: d.inEffect, Export: d.export, Unready: d.unready, SetReadiness: d.store.SetReadiness, Log: d.log, Now: d.now,
		MinRefresh: 2 * time.Second,
	})
	if err != nil {
		return err
	}
	d.metrics.registry.MustRegister(d.federation)
	return nil
}

func trustDomain(cfg *snapshot.Config, dir string) (spiffe.TrustDomain, error) {
	if cfg.Mesh == nil {
		if len(cfg.Findings) > 0 {
			return spiffe.TrustDomain{}, fmt.Errorf("no Mesh object could be read from %s: %s", dir, cfg.Findings[0])
		}
		return spiffe.TrustDomain{}, fmt.Errorf("there is no Mesh object in %s: write one (docs/kinds/mesh.md) and start again", dir)
	}
	return spiffe.ParseTrustDomain(cfg.Mesh.Spec.TrustDomain)
}

func federationName(cfg *snapshot.Config) string {
	if f := cfg.Mesh.Spec.Federation; f != nil && f.Name != "" {
		return f.Name
	}
	return cfg.Mesh.Name
}

// peeringAddresses are where gateways reach this control plane as its settings say: for gateways that reach it through
// address translation. Without them each gateway goes where its agent goes, at this port.
func peeringAddresses(cfg config.Control) (said []netip.AddrPort, port uint16, err error) {
	ap, err := addrPort(cfg.PeeringAddress)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("peeringAddress: %w", err)
	case !ap.Addr().IsUnspecified():
		said = []netip.AddrPort{ap}
	case len(cfg.Names.IPs) > 0:
		said = []netip.AddrPort{netip.AddrPortFrom(cfg.Names.IPs[0], ap.Port())}
	}
	return said, ap.Port(), nil
}

func addrPort(s string) (netip.AddrPort, error) {
	if len(s) > 0 && s[0] == ':' {
		s = "0.0.0.0" + s
	}
	return netip.ParseAddrPort(s)
}

// followConfig hands what the folder says to the store.
func (d *Daemon) followConfig(ctx context.Context) error {
	var waiting *snapshot.Config // what has names without an address, because the state file could not be written
	for {
		var again <-chan time.Time
		if waiting != nil {
			again = time.After(configRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case waiting = <-d.source.Updates():
		case <-again:
		}
		if err := d.store.SetConfig(ctx, d.steadfast(waiting)); err != nil {
			d.log.Error("names that are new have no virtual address yet", "error", err, "again", configRetry)
			continue
		}
		waiting = nil
	}
}

// steadfast keeps the Mesh that the control plane began with when the new one is missing or names another trust domain.
func (d *Daemon) steadfast(cfg *snapshot.Config) *snapshot.Config {
	old := d.store.Snapshot().Config.Mesh
	if cfg.Mesh != nil && cfg.Mesh.Spec.TrustDomain == old.Spec.TrustDomain {
		return cfg
	}
	out := *cfg
	out.Mesh = old
	f := meshGone
	if cfg.Mesh != nil {
		o := cfg.Origins.Lookup(snapshot.Key{Kind: "Mesh", Name: cfg.Mesh.Name})
		f = meshRenamed
		f.File, f.Line = o.File, o.LineOf(f.Field)
	}
	out.Findings = append(out.Findings[:len(out.Findings):len(out.Findings)], f)
	return &out
}
