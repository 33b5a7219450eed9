package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"path/filepath"

	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/adsproxy"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/node/limits"
	"isthmus.dev/isthmus/internal/node/sds"
)

// proxy is one Envoy and the socket at which only it asks the agent.
type proxy struct {
	workload string // "<namespace>/<name>"; empty when it serves all
	runDir   string
	envoy    *envoyproc.Supervisor
	keeper   *socketKeeper
	ads      *adsproxy.Proxy
	secrets  *sds.Service
}

// newProxy makes the Envoy of one workload, or of all. A workload's own Envoy gets only that workload's configuration
// and certificate, so that breaking into it compromises no other workload.
func (a *Agent) newProxy(w *Workload, binary string) *proxy {
	p := &proxy{runDir: a.cfg.RunDir, secrets: &sds.Service{Store: a.sds}}
	id := a.cfg.Name
	if w != nil {
		p.workload, p.runDir = w.Key(), a.cfg.sidecarDir(w.Key())
		p.secrets.Only = []sds.ServiceAccount{{Namespace: w.Namespace, Name: w.ServiceAccount}}
		id += "/" + w.Key()
	}
	p.ads = adsproxy.New(a.control.EnvoyConn, p.workload)
	p.envoy = envoyproc.New(envoyproc.Config{
		Log: a.log, Binary: binary, RunDir: p.runDir, Concurrency: a.cfg.Envoy.Concurrency,
		LogLevel: a.cfg.Envoy.LogLevel,
		Bootstrap: envoyproc.Bootstrap{
			Node: id, MaxConnections: uint64(a.cfg.Envoy.MaxConnections), MaxHeapBytes: a.cfg.Envoy.MaxHeapMiB << 20,
		},
		Group: a.group, FDStore: a.cfg.Gateway == nil, Keep: a.keepEnvoy, Changed: a.reportChanged,
	})
	p.keeper = &socketKeeper{log: a.log, hold: p.envoy.Hold}
	return p
}

// sidecarDir is short, as the paths of sockets must be.
func (c Config) sidecarDir(workload string) string {
	return filepath.Join(c.RunDir, fmt.Sprintf("envoy-%.4x", sha256.Sum256([]byte(workload))))
}

// open prepares an Envoy and listens for it.
func (p *proxy) open(ctx context.Context) (net.Listener, error) {
	if p.workload != "" {
		if err := privateDir(p.runDir); err != nil {
			return nil, err
		}
	}
	if err := p.envoy.Prepare(ctx); err != nil {
		return nil, err
	}
	return listenUnix(envoyproc.AgentSocket(p.runDir))
}

// runProxy runs one Envoy and serves it until ctx is done.
func (a *Agent) runProxy(ctx context.Context, p *proxy, socket net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.envoy.Run(ctx) })
	g.Go(func() error { return a.answer(ctx, p, socket) })
	return g.Wait()
}

// runSidecar runs the Envoy of one workload for as long as its namespace is there.
func (a *Agent) runSidecar(ctx context.Context, p *proxy) error {
	socket, err := p.open(ctx)
	if err != nil {
		return err
	}
	return a.runProxy(ctx, p, socket)
}

// answer serves one Envoy: it relays its configuration, supplies its certificates and receives its logs.
func (a *Agent) answer(ctx context.Context, p *proxy, socket net.Listener) error {
	s := grpc.NewServer(grpc.ForceServerCodecV2(adsproxy.NewCodec()), grpc.MaxRecvMsgSize(64<<20),
		grpc.MaxSendMsgSize(64<<20))
	p.ads.Register(s)
	secretv3.RegisterSecretDiscoveryServiceServer(s, p.secrets)
	runtimev3.RegisterRuntimeDiscoveryServiceServer(s, &limits.Service{Connections: a.connections(p)})
	extensionv3.RegisterExtensionConfigDiscoveryServiceServer(s, &envoyproc.BuiltinFilters{Log: a.log})
	a.logs.Register(s)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(socket); ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// connections returns the shares of an Envoy's connections that its listeners get.
func (a *Agent) connections(p *proxy) map[string]uint32 {
	if a.cfg.Gateway != nil {
		return limits.OfGateway(a.cfg.Envoy.MaxConnections)
	}
	workloads := []string{p.workload}
	if p.workload == "" {
		workloads = nil
		for _, w := range a.cfg.Workloads {
			workloads = append(workloads, w.Key())
		}
	}
	return limits.OfWorkloads(a.cfg.Envoy.MaxConnections, workloads)
}

// envoyState returns the combined state of all Envoys.
func (a *Agent) envoyState() agentapi.EnvoyState {
	out := agentapi.EnvoyState{Running: true}
	for i, p := range a.proxies {
		if p.workload != "" && a.namespaces[i].instance.Load() == nil {
			continue // it has nothing to serve
		}
		s := p.envoy.State()
		out.Running = out.Running && s.Running
		out.Version = s.Version
		out.Restarts += s.Restarts
		out.Refused += s.Refused
		if s.RefusedLast.After(out.RefusedLast) {
			out.RefusedLast = s.RefusedLast
		}
		if out.Crashes += s.Crashes; s.Crashes > 0 {
			out.LastCrash = s.LastCrash
		}
	}
	return out
}

// sidecarStates returns those of Envoys that serve one workload each.
func (a *Agent) sidecarStates() map[string]agentapi.EnvoyState {
	var out map[string]agentapi.EnvoyState
	for _, p := range a.proxies {
		if p.workload == "" {
			continue
		}
		if out == nil {
			out = map[string]agentapi.EnvoyState{}
		}
		out[p.workload] = p.envoy.State()
	}
	return out
}
