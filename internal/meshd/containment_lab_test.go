package meshd

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
)

// proxy is one of the proxies that the status lists.
func (p *plane) proxy(name string) adminapi.ProxyStatus {
	p.t.Helper()
	for _, s := range p.status().Proxies {
		if s.Name == name {
			return s
		}
	}
	return adminapi.ProxyStatus{}
}

// objectsAt are those that a proxy is told something of.
func (p *plane) objectsAt(proxy string) (all []string) {
	p.t.Helper()
	resp, err := adminapi.Call[adminapi.ProxyConfigRequest, adminapi.ProxyConfigResponse](soon(p.t), p.local(),
		"ProxyConfig", &adminapi.ProxyConfigRequest{Name: proxy})
	if err != nil {
		return nil // it is not known yet
	}
	for _, r := range resp.Resources {
		for _, o := range r.Objects {
			name, _, _ := strings.Cut(o, " (")
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (p *plane) isTold(proxy, object string) bool { return slices.Contains(p.objectsAt(proxy), object) }

// quarantinedAt are the objects that are closed at a proxy.
func (p *plane) quarantinedAt(proxy string) (all []string) {
	p.t.Helper()
	if c := p.proxy(proxy).Contained; c != nil {
		for _, q := range c.Quarantined {
			all = append(all, q.Object)
		}
	}
	return all
}

// ill is an agent whose Envoy and whose trials do as a test says.
type ill struct {
	*fakeAgent
	workloads []snapshot.Workload
	crashes   int
	trials    atomic.Int64
	// verdict says why a configuration could not be lived with; empty for one that could. Refuses says so of one
	// response.
	verdict atomic.Pointer[func([]agentapi.TrialResource) string]
	refuses func(*discoveryv3.DeltaDiscoveryResponse) string
}

// ill joins a node with an Envoy that acknowledges everything and finds nothing wrong, until told otherwise.
func (p *plane) ill(node string, ws ...snapshot.Workload) *ill {
	p.t.Helper()
	return p.illAs(node, func([]agentapi.TrialResource) string { return "" }, nil, ws...)
}

func (p *plane) illAs(
	node string, verdict func([]agentapi.TrialResource) string,
	refuses func(*discoveryv3.DeltaDiscoveryResponse) string, ws ...snapshot.Workload,
) *ill {
	p.t.Helper()
	i := &ill{fakeAgent: p.agent(node, []string{"default/*"}, ws...), workloads: ws, refuses: refuses}
	i.instructed("anything", func(*agentapi.Instructions) bool { return true })
	go i.live()
	if verdict != nil {
		i.verdict.Store(&verdict)
		stream, err := agentapi.Client{Conn: i.conn}.Try(p.t.Context())
		must(p.t, err)
		must(p.t, stream.Send(&agentapi.Verdict{}))
		go i.judge(stream.Recv, stream.Send)
		eventually(p.t, "it can be asked", func() bool { return p.d.agents.CanTry(node) })
	}
	return i
}

// live is its Envoy: it asks for clusters, listeners and the routes of its servers.
func (i *ill) live() {
	px := ads(i.t, i.conn, nil)
	px.has[envoy.RouteType] = map[string]string{}
	var routes []string
	for _, w := range i.workloads {
		routes = append(routes, w.Namespace+"/"+w.Name+":8080")
	}
	px.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.RouteType, ResourceNamesSubscribe: routes})
	for {
		select {
		case <-i.t.Context().Done():
			return
		case r := <-px.news:
			answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}
			if i.refuses != nil {
				if why := i.refuses(r); why != "" {
					answer.ErrorDetail = &statuspb.Status{Message: why}
				}
			}
			px.send(answer)
		}
	}
}

func (i *ill) judge(recv func() (*agentapi.Trial, error), send func(*agentapi.Verdict) error) {
	var all []agentapi.TrialResource
	for {
		t, err := recv()
		if err != nil {
			return
		}
		all = append(all, t.Resources...)
		if t.More {
			continue
		}
		i.trials.Add(1)
		if send(&agentapi.Verdict{ID: t.ID, Refusal: (*i.verdict.Load())(all)}) != nil {
			return
		}
		all = nil
	}
}

// crash reports that its Envoy did.
func (i *ill) crash() {
	i.t.Helper()
	i.crashes++
	i.report(agentapi.Report{Version: "test", Workloads: i.workloads, Envoy: agentapi.EnvoyState{
		Running: true, Restarts: i.crashes, Crashes: i.crashes, LastCrash: "it crashed: signal: aborted",
	}})
}

// dislikes is a verdict about the rules of some policies.
func dislikes(policies ...string) func([]agentapi.TrialResource) string {
	return func(rs []agentapi.TrialResource) string {
		for _, r := range rs {
			for _, name := range policies {
				if bytes.Contains(r.Body, []byte("/in-force/"+name+"/")) {
					return "[critical] assert failure: " + name
				}
			}
		}
		return ""
	}
}

// lived waits until all proxies count as having lived with what they were told last.
func (p *plane) lived() {
	p.t.Helper()
	eventually(p.t, "everybody lives with what was told last", p.d.containment.AllStable)
}

func startWards(p *plane) {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Log(p.logs.String())
		}
	})
	p.plant = func(d *Daemon) { d.stableAfter = 10 * time.Millisecond }
	p.start()
}
