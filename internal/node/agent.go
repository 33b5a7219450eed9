package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/accesslog"
	"isthmus.dev/isthmus/internal/node/adsproxy"
	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/control"
	"isthmus.dev/isthmus/internal/node/dns"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/node/readiness"
	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/node/workloadapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// maxAccessLog bounds the access log's file, and the older one beside it.
const maxAccessLog = 32 << 20

// Agent is one node or gateway.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	changed chan struct{} // holds one token when the report may have changed
	told    func() bool   // whether the agent was told to stop; set by Run

	control   *control.Client
	ads       *adsproxy.Proxy
	sds       *sds.Store
	logs      *accesslog.Service
	dns       *dns.Server
	probes    *readiness.Prober
	workloads *workloadapi.Server
	envoy     *envoyproc.Supervisor
	listeners listeners
}

// New builds an agent from a configuration that LoadConfig read. Nothing is touched yet.
func New(cfg Config) (*Agent, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	upstreams, err := cfg.upstreams()
	if err != nil {
		return nil, err
	}
	binary, err := cfg.envoyBinary()
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1)}
	a.control = control.New(control.Config{
		Log: a.log, Node: cfg.Name, Role: cfg.Role(), Addresses: cfg.Control.Addresses, TokenFile: cfg.Control.TokenFile,
		IdentityFile: filepath.Join(cfg.StateDir, "identity.pem"), Mark: cfg.ownMark(),
		Report: a.report, Changed: a.changed, Instructions: a.instruct,
	})
	a.ads = adsproxy.New(a.control.Conn)
	a.sds = sds.New(sds.Config{
		Log: a.log, Accounts: cfg.accounts(), Sign: a.control.Sign, Joined: a.control.Joined(), Changed: a.touch,
	})
	a.logs = accesslog.New(accesslog.Config{Log: a.log, Path: filepath.Join(cfg.RunDir, "access.log"), MaxBytes: maxAccessLog})
	a.dns = dns.New(dns.Config{Log: a.log, Upstreams: upstreams, Mark: cfg.ownMark()})
	a.probes = readiness.New(a.log, cfg.targets(), a.touch)
	a.workloads = a.newWorkloadAPI()
	a.envoy = envoyproc.New(envoyproc.Config{
		Log: a.log, Binary: binary, RunDir: cfg.RunDir, Concurrency: cfg.Envoy.Concurrency, LogLevel: cfg.Envoy.LogLevel,
		Bootstrap: envoyproc.Bootstrap{Node: cfg.Name, MaxConnections: cfg.Envoy.MaxConnections, MaxHeapBytes: cfg.Envoy.MaxHeapMiB << 20},
		Keep:      a.keepEnvoy, Changed: a.touch,
	})
	return a, nil
}

// Run prepares the host, then lives until ctx ends. Capture comes first: from then on nothing leaves a workload in
// plaintext, whatever else is not up yet.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := a.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	a.recall()
	if err := a.capture(); err != nil {
		return err
	}
	if a.cfg.Capture.RemoveOnStop {
		defer a.release()
	}
	if err := a.listen(); err != nil {
		return err
	}
	defer a.unlisten()
	if err := a.envoy.Prepare(ctx); err != nil {
		return err
	}

	told := ctx
	a.told = func() bool { return told.Err() != nil }
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		a.control.Run, a.sds.Run, a.dns.Run, a.probes.Run, a.envoy.Run, a.workloads.Run, a.serve,
	} {
		g.Go(func() error { return part(ctx) })
	}
	err = g.Wait()
	if closing := a.logs.Close(); closing != nil {
		a.log.Error("access log not closed", "error", closing)
	}
	if errors.Is(err, context.Canceled) {
		return nil // asked to stop
	}
	return err
}

// keepEnvoy says whether Envoy goes on when the agent ends: an agent that is told to stop ends it, unless it is to be
// kept; one that fails leaves it to the next agent, if Envoy can have anything to serve.
func (a *Agent) keepEnvoy() bool {
	if a.told() {
		return a.cfg.Envoy.KeepOnStop
	}
	return a.control.Identity() != nil
}

// capture redirects every workload's traffic.
func (a *Agent) capture() error {
	if a.cfg.Capture.Off {
		a.log.Warn("capture is off: the workloads' traffic is not protected")
		return nil
	}
	rules := capture.Rules{
		ExcludeOutboundPorts: a.cfg.Capture.ExcludeOutboundPorts, ExcludeInboundPorts: a.cfg.Capture.ExcludeInboundPorts,
	}
	for _, text := range a.cfg.Capture.ExcludeOutboundCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("capture.excludeOutboundCIDRs: %w", err)
		}
		rules.ExcludeOutboundCIDRs = append(rules.ExcludeOutboundCIDRs, p)
	}
	for _, w := range a.cfg.Workloads {
		if err := capture.Install(w.Netns, rules); err != nil {
			return fmt.Errorf("capture the traffic of workload %s: %w", w.Key(), err)
		}
	}
	return nil
}

func (a *Agent) release() {
	for _, w := range a.cfg.Workloads {
		if err := capture.Remove(w.Netns); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.log.Error("capture not removed", "workload", w.Key(), "error", err)
		}
	}
}

// touch says that the report may have changed.
func (a *Agent) touch() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// report is everything that the control plane is told.
func (a *Agent) report() agentapi.Report {
	r := agentapi.Report{Version: a.cfg.Version, Envoy: a.envoy.State(), Certs: a.certs()}
	if g := a.cfg.Gateway; g != nil {
		r.Gateway = &snapshot.GatewayInfo{ServiceAccount: g.ServiceAccount, InnerAddress: g.InnerAddress, OuterAddress: g.OuterAddress}
		r.Peers = a.logs.Peers()
	}
	for _, w := range a.cfg.Workloads {
		r.Workloads = append(r.Workloads, w.registered(a.cfg.Name, a.probes.Ready(w.Key())))
	}
	return r
}

func (a *Agent) certs() []agentapi.CertState {
	certs := a.sds.Certs()
	if own := a.control.Identity(); own != nil {
		certs = append(certs, own.State())
	}
	return certs
}

// registered is the workload as the control plane keeps it.
func (w Workload) registered(node string, ready bool) snapshot.Workload {
	out := snapshot.Workload{
		Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, Node: node,
		Labels: w.Labels, Addresses: w.Addresses, Netns: w.Netns, Ready: ready,
	}
	for _, p := range w.Ports {
		out.Ports = append(out.Ports, snapshot.WorkloadPort{Name: p.Name, Number: p.Number})
	}
	return out
}

// accounts whose certificates this agent's Envoy may have.
func (c Config) accounts() []sds.ServiceAccount {
	if c.Gateway != nil {
		return []sds.ServiceAccount{{Namespace: spiffe.SystemNamespace, Name: c.Gateway.ServiceAccount}}
	}
	var out []sds.ServiceAccount
	for _, w := range c.Workloads {
		out = append(out, sds.ServiceAccount{Namespace: w.Namespace, Name: w.ServiceAccount})
	}
	return out
}

// ownMark is the mark of the agent's own connections: they need one where capture is in the agent's own namespace.
func (c Config) ownMark() uint32 {
	for _, w := range c.Workloads {
		if w.Netns == "" && !c.Capture.Off {
			return agentapi.SocketMark
		}
	}
	return 0
}

func (c Config) targets() []readiness.Target {
	var out []readiness.Target
	for _, w := range c.Workloads {
		t := readiness.Target{Workload: w.Key(), Netns: w.Netns, Address: w.Addresses[0], Mark: agentapi.SocketMark}
		if p := w.Readiness; p != nil {
			t.Period, t.Timeout, t.Failures = p.Period, p.Timeout, p.Failures
			if p.TCP != nil {
				t.Port = p.TCP.Port
			} else {
				t.Port, t.Path = p.HTTP.Port, p.HTTP.Path
			}
		}
		out = append(out, t)
	}
	return out
}

func (c Config) envoyBinary() (string, error) {
	if c.Envoy.Path != "" {
		return c.Envoy.Path, envoyproc.Executable(c.Envoy.Path)
	}
	return envoyproc.Locate(c.Envoy.CacheDir)
}

// LocateEnvoy finds the Envoy binary: $ISTHMUS_ENVOY, then PATH, then the cache that `make envoy` fills.
func LocateEnvoy(cacheDir string) (string, error) { return envoyproc.Locate(cacheDir) }
