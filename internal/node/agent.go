package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/accesslog"
	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/control"
	"isthmus.dev/isthmus/internal/node/dns"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/node/readiness"
	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/node/workloadapi"
	"isthmus.dev/isthmus/internal/sdnotify"
	"isthmus.dev/isthmus/internal/spiffe"
)

// aliases is the directory, below the run directory, of the links to the workloads' namespaces.
const aliases = "netns"

// Limits on the disk space of the access log and the DNS question log. Each workload has a current file and an older
// one. The limits are those of one file and of all files together, as far as every file may have its minimum size.
const (
	maxLog   = 8 << 20
	leastLog = 1 << 20
	allLogs  = 512 << 20
)

// logBytes returns the bound of one of those files.
func logBytes(workloads int) int64 {
	const kinds, ages = 2, 2
	return max(leastLog, min(maxLog, allLogs/int64(kinds*ages*(workloads+1))))
}

// Agent is one node or gateway.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	changed  chan struct{}            // holds one token when the report may have changed
	stopping func() bool              // whether the agent was told to stop; set by Run
	leaving  atomic.Bool              // its workloads are reported not ready, since they soon will not be served
	revoked  atomic.Pointer[[]string] // serial numbers of administrators' certificates, hex
	// what the control plane rejected last; owned by the goroutine that calls applyInstructions
	rejected []string
	// where the workloads accept plaintext; nil until the control plane has said so
	plaintext atomic.Pointer[map[string]agentapi.Plaintext]

	control           *control.Client
	sds               *sds.Store
	logs              *accesslog.Service
	dns               *dns.Server
	probes            *readiness.Prober
	workloads         *workloadapi.Server
	namespacesChanged *broadcast
	group             *cgroup.Group        // of the Envoys; nil where nothing is captured
	namespaces        []*workloadNamespace // one per workload
	proxies           []*proxy             // one for all, or one a workload
	listeners         listeners
}

// New builds an agent from a configuration that LoadConfig read. It touches nothing yet.
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
		Log: a.log, Node: cfg.Name, Role: cfg.Role(), Addresses: cfg.Control.Addresses,
		TokenFile: cfg.Control.TokenFile, IdentityFile: filepath.Join(cfg.StateDir, "identity.pem"), Report: a.report,
		Changed: a.changed, Instructions: a.applyInstructions,
	})
	a.sds = sds.New(sds.Config{
		Log: a.log, Accounts: cfg.accounts(), Sign: a.control.Sign, Joined: a.control.Joined(),
		Changed: a.reportChanged,
	})
	a.probes = readiness.New(a.log, cfg.targets(), a.reportChanged)
	a.logs = accesslog.New(accesslog.Config{
		Log: a.log, Path: filepath.Join(cfg.RunDir, "access.log"), Questions: filepath.Join(cfg.RunDir, "dns.log"),
		MaxBytes: logBytes(len(cfg.Workloads)), Changed: a.reportChanged, Unserved: a.probes.ProbeNow,
	})
	a.dns = dns.New(dns.Config{Log: a.log, Upstreams: upstreams, Record: func(o dns.ExternalQuestion) {
		a.logs.Question(o.Workload, o.Name, o.Type, o.Result)
	}})
	if err := a.makeNamespaces(binary); err != nil {
		return nil, err
	}
	a.workloads = a.newWorkloadAPI()
	return a, nil
}

// Run prepares the host and runs until ctx is done. Capture comes first: from then on nothing leaves a workload in
// plaintext, whatever else is not running yet.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := a.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	if a.group != nil {
		if err := a.group.Make(); err != nil {
			return err
		}
		defer a.forgetGroup()
		if err := a.group.Sweep(controlGroups); err != nil {
			a.log.Warn("control groups of killed agents not removed", "error", err)
		}
	}
	a.loadInstructions()
	defer a.closeListeners()
	a.enterNamespaces()
	if err := sdnotify.Ready(); err != nil { // what is started after it finds its namespace captured
		return err
	}
	if a.cfg.Capture.RemoveOnStop {
		defer a.release()
	}
	told := ctx
	a.stopping = func() bool { return told.Err() != nil }
	ctx, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	defer context.AfterFunc(told, func() {
		defer end()
		a.leave(ctx)
	})()
	g, ctx := errgroup.WithContext(ctx)
	parts := []func(context.Context) error{a.watch, a.runServices}
	for _, h := range a.namespaces {
		parts = append(parts, h.run)
	}
	for _, part := range parts {
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

// ControlGroup returns the name of the control group of a node's Envoys.
func ControlGroup(node, runDir string) string {
	return fmt.Sprintf("isthmus-%s-%.4x", node, sha256.Sum256([]byte(runDir)))
}

// controlGroups are the names that ControlGroup gives.
var controlGroups = regexp.MustCompile(`^isthmus-[a-z0-9-]+-[0-9a-f]{8}$`)

// forgetGroup removes the Envoys' control group unless one of them goes on running.
func (a *Agent) forgetGroup() {
	if err := a.group.Remove(); err != nil {
		a.log.Warn("control group not removed", "error", err)
	}
	a.group.Close()
}

// runServices runs everything except capture, which does not wait for it.
func (a *Agent) runServices(ctx context.Context) error {
	if err := a.listen(); err != nil {
		return err
	}
	var socket net.Listener
	if a.cfg.Mode != Sidecar {
		var err error
		if socket, err = a.proxies[0].open(ctx); err != nil {
			return err
		}
	}
	if err := a.probes.First(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		a.control.Run, a.sds.Run, a.probes.Run, a.workloads.Run, a.serve, a.answerTrials, a.forgetPlaintext,
	} {
		g.Go(func() error { return part(ctx) })
	}
	if socket != nil {
		g.Go(func() error { return a.runProxy(ctx, a.proxies[0], socket) })
	}
	return g.Wait()
}

// keepEnvoy reports whether Envoy keeps running when its agent ends, or when only its workload's namespace ends. An
// agent that is told to stop ends Envoy, unless configured otherwise. An agent that fails leaves Envoy to the next one,
// if that can have anything to serve.
func (a *Agent) keepEnvoy(why error) bool {
	switch {
	case errors.Is(why, errMoved):
		return false
	case a.stopping():
		return a.cfg.Envoy.KeepOnStop
	}
	return a.control.Identity() != nil
}

// makeNamespaces makes a workloadNamespace for each workload.
func (a *Agent) makeNamespaces(binary string) error {
	common, err := a.cfg.Capture.rules()
	if err != nil {
		return err
	}
	a.namespacesChanged = newBroadcast()
	tenants := newTenants()
	if common != nil && a.cfg.Gateway == nil {
		a.group = cgroup.New(ControlGroup(a.cfg.Name, a.cfg.RunDir))
	}
	if a.cfg.Mode != Sidecar {
		a.proxies = []*proxy{a.newProxy(nil, binary)}
	}
	for i := range a.cfg.Workloads {
		w := a.cfg.Workloads[i]
		h := &workloadNamespace{
			workload: w, log: a.log, aliases: filepath.Join(a.cfg.RunDir, aliases),
			rules: w.rules(common), openLimit: *a.cfg.Capture.LeaveOpen,
			plaintext: func() (agentapi.Plaintext, bool) { return a.plaintextOf(w.Key()) },
			group:     a.group, dns: a.dns, appeared: a.namespacesChanged, tenants: tenants, changed: a.reportChanged,
		}
		if a.cfg.Mode == Sidecar {
			p := a.newProxy(&a.cfg.Workloads[i], binary)
			a.proxies = append(a.proxies, p)
			h.serve = func(ctx context.Context) error { return a.runSidecar(ctx, p) }
		}
		h.keeper = a.proxies[len(a.proxies)-1].keeper
		a.namespaces = append(a.namespaces, h)
	}
	return nil
}

// enterNamespaces enters every namespace that exists already. Missing ones may appear later, and failures are retried.
func (a *Agent) enterNamespaces() {
	if a.cfg.Capture.Off {
		a.log.Warn("capture is off: the workloads' traffic is not protected")
	}
	if a.cfg.Gateway != nil {
		return // it has no workloads, and its Envoy keeps nothing for it
	}
	for _, p := range a.proxies {
		p.keeper.inherit(p.runDir)
		defer p.keeper.disown()
	}
	for _, h := range a.namespaces {
		if err := h.enter(); err != nil {
			h.setTrouble(err)
		}
	}
}

// rules returns the rules of capture; nil when it is off.
func (c CaptureConfig) rules() (*capture.Rules, error) {
	if c.Off {
		return nil, nil
	}
	rules := &capture.Rules{ExcludeOutboundPorts: c.ExcludeOutboundPorts, ExcludeInboundPorts: c.ExcludeInboundPorts}
	for _, text := range c.ExcludeOutboundCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("capture.excludeOutboundCIDRs: %w", err)
		}
		rules.ExcludeOutboundCIDRs = append(rules.ExcludeOutboundCIDRs, p)
	}
	return rules, nil
}

// rules returns the rules of capture of one workload, which may exclude ports beyond those of all; nil when capture is
// off.
func (w Workload) rules(common *capture.Rules) *capture.Rules {
	if common == nil {
		return nil
	}
	own := *common
	own.ExcludeInboundPorts = slices.Concat(common.ExcludeInboundPorts, w.ExcludeInboundPorts)
	slices.Sort(own.ExcludeInboundPorts)
	own.ExcludeInboundPorts = slices.Compact(own.ExcludeInboundPorts)
	return &own
}

// plaintextOf returns where a workload accepts plaintext, as far as the control plane has said so.
func (a *Agent) plaintextOf(workload string) (agentapi.Plaintext, bool) {
	all := a.plaintext.Load()
	if all == nil {
		return agentapi.Plaintext{}, false
	}
	p, known := (*all)[workload]
	return p, known
}

func (a *Agent) release() {
	for _, w := range a.cfg.Workloads {
		if err := capture.Remove(w.Netns); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.log.Error("capture not removed", "workload", w.Key(), "error", err)
		}
	}
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

func (c Config) targets() []readiness.Target {
	var out []readiness.Target
	for _, w := range c.Workloads {
		t := readiness.Target{Workload: w.Key(), Netns: w.Netns, Addresses: w.Addresses}
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

// LocateEnvoy finds the Envoy binary: $ISTHMUS_ENVOY, the package isthmus-envoy, PATH, then the cache that `make envoy`
// fills.
func LocateEnvoy(cacheDir string) (string, error) { return envoyproc.Locate(cacheDir) }
