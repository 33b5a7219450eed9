package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// plane is a real control plane on one core, and nodes that host all the workloads between them.
type plane struct {
	dir     string
	control *rig.Control
	csr     []byte
	conns   []*grpc.ClientConn
	hosted  int          // by each node
	next    atomic.Int64 // whose turn it is: a node may not ask again and again for one identity
	end     context.CancelFunc
}

func startPlane(ctx context.Context, o options, csr []byte) (p *plane, err error) {
	mesh, err := genmesh.New(genmesh.Plan{Services: 1, Endpoints: 1, Proxies: o.nodes, Callable: 1})
	if err != nil {
		return nil, err
	}
	p = &plane{csr: csr, hosted: max(1, o.workloads/o.nodes)}
	if p.dir, err = os.MkdirTemp("", "isthmus-bench-"); err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	configDir := filepath.Join(p.dir, "config")
	if err := errors.Join(os.Mkdir(configDir, 0o755), mesh.Write(configDir)); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	if p.control, err = rig.Start(o.binary, p.dir, configDir, "GOMAXPROCS=1"); err != nil {
		return nil, err
	}
	if err := p.populate(ctx, o, mesh); err != nil {
		return nil, fmt.Errorf("%w\nThe control plane's last words:\n%s", err, p.control.LogTail())
	}
	return p, nil
}

// populate joins the nodes and registers the workloads on them.
func (p *plane) populate(ctx context.Context, o options, mesh *genmesh.Mesh) error {
	conversing, end := context.WithCancel(ctx)
	p.end = end
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.control.WaitLoaded(ready, mesh.Objects()); err != nil {
		return err
	}
	for node := range o.nodes {
		cfg, err := rig.Join(ready, p.control.Admin, p.control.AgentAddress, node)
		if err != nil {
			return err
		}
		conn, err := grpc.NewClient(p.control.AgentAddress, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
		if err != nil {
			return fmt.Errorf("dial %s: %w", p.control.AgentAddress, err)
		}
		p.conns = append(p.conns, conn)
		go rig.RunAgentStream(conversing, conn, p.workloads(node)...) // without it Sign is refused, which says why
	}
	for node := range o.nodes { // until its workloads are registered
		for err := p.ask(ready, node); err != nil; err = p.ask(ready, node) {
			select {
			case <-ready.Done():
				return fmt.Errorf("ask for a certificate: %w", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// workloads are those of one node, each with a service account of its own.
func (p *plane) workloads(node int) []snapshot.Workload {
	all := make([]snapshot.Workload, p.hosted)
	for i := range all {
		all[i] = genmesh.Workload(node)
		all[i].Name, all[i].ServiceAccount = account(node, i), account(node, i)
		all[i].Netns = "" // they share an address, as only workloads of the host itself do
	}
	return all
}

func account(node, i int) string { return fmt.Sprintf("%s-%d", genmesh.CallerAccount(node), i) }

// ask asks for one certificate, on the connection of one of the nodes.
func (p *plane) ask(ctx context.Context, caller int) error {
	node := caller % len(p.conns)
	i := int(p.next.Add(1)) / len(p.conns) % p.hosted
	_, err := agentapi.Client{Conn: p.conns[node]}.Sign(ctx,
		&agentapi.SignRequest{Namespace: genmesh.CallersNamespace, ServiceAccount: account(node, i), CSR: p.csr})
	return err
}

// renewals is what n renewals cost the control plane that come one after the other, as they do when nodes spread them:
// none shares its write to the disk with another.
func (p *plane) renewals(ctx context.Context, n int) (time.Duration, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	for i := range n {
		if err := p.ask(ctx, i); err != nil {
			return 0, err
		}
	}
	after, err := p.cpu()
	return after - before, err
}

func (p *plane) cpu() (time.Duration, error) {
	u, err := p.control.Usage()
	return u.CPU, err
}

func (p *plane) stop() {
	if p.end != nil {
		p.end()
	}
	for _, c := range p.conns {
		c.Close()
	}
	if p.control != nil {
		p.control.Stop()
	}
	os.RemoveAll(p.dir)
}
