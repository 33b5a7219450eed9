package agents

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/errand"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// world is what Agents need around them: a state and a store that can be away.
type world struct {
	State
	Store
	node state.Node

	mu         sync.Mutex // guards all below
	unreadable error      // what is kept of the node
	unwritable error      // what it registers
	registered []string   // the workloads, of the last registration
	shared     []agentapi.Report
	records    []time.Time // when they were shared
}

func (w *world) NodeOf(context.Context, string) (state.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node, w.unreadable
}

func (w *world) Admin(context.Context, string) (state.Admin, error) {
	return state.Admin{}, state.ErrNotFound
}

func (w *world) Register(
	_ context.Context, _ uint64, _ snapshot.Node, workloads []snapshot.Workload, stands func() error,
) error {
	if err := stands(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unwritable != nil {
		return w.unwritable
	}
	w.registered = nil
	for _, one := range workloads {
		w.registered = append(w.registered, one.Name)
	}
	return nil
}

func (w *world) Clashes(string) (none []finding.Finding) { return nil }

func (w *world) Said(string) (n snapshot.Node, ws []snapshot.Workload, known bool) {
	return n, ws, known
}

func (w *world) Report(string) snapshot.Report { return snapshot.Report{} }

func (w *world) SetReport(snapshot.Report) {}

func (w *world) PutAgent(_ context.Context, a state.Agent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s shared
	if err := json.Unmarshal(a.Report, &s); err != nil {
		return err
	}
	w.shared, w.records = append(w.shared, s.Report), append(w.records, time.Now())
	return nil
}

// away has the state not be there, or be there again.
func (w *world) away(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unreadable, w.unwritable = err, err
}

func (w *world) workloads() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.registered
}

// conversation is that of one node's agent, in a bubble.
type conversation struct {
	*world
	agents  *Agents
	agent   *agent
	reports chan *agentapi.Report
	ended   chan error
}

func converse(t *testing.T, role snapshot.Role) *conversation {
	t.Helper()
	td, err := spiffe.ParseTrustDomain("cards.example")
	must(t, err)
	id, err := spiffe.Node(td, "n1")
	must(t, err)
	w := &world{node: state.Node{
		Node: snapshot.Node{Name: "n1", Role: role}, Generation: "g1",
		Grant: grant.Grant{Identities: []string{"default/*", "isthmus-system/gateway"}},
	}}
	c := &conversation{
		world: w, agent: &agent{name: "n1", stream: 1, telling: errand.New(func() error { return nil }, nil)},
		reports: make(chan *agentapi.Report), ended: make(chan error, 2),
	}
	c.agents = &Agents{
		Config: Config{
			TrustDomain: td, State: w, Store: w, Holder: "one", Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Standing: standing.New(standing.Config{
				State: w, Trusts: func([][]*x509.Certificate) bool { return true }, Now: time.Now,
			}),
			Reported: func(string, *agentapi.Report) {}, Refused: func(state.Event) {},
		},
		quotas: quotas{of: map[string]*quota{}}, remote: map[string]remote{},
		clashed: map[string][]finding.Finding{},
	}
	caller := door.Caller{
		Kind: door.Node, Name: "n1", ID: id,
		Certificate: &door.Certificate{Generation: "g1", NotAfter: time.Now().Add(time.Hour)},
	}
	go c.agents.listen(t.Context(), &caller, c.agent, func() (*agentapi.Report, error) {
		if r, more := <-c.reports; more {
			return r, nil
		}
		return nil, io.EOF
	}, c.ended)
	return c
}

// says sends a report and gives it time to be taken in.
func (c *conversation) says(r agentapi.Report, wait time.Duration) {
	c.reports <- &r
	waittest.Advance(wait)
}

func (c *conversation) hosts(names ...string) agentapi.Report {
	var r agentapi.Report
	for _, name := range names {
		r.Workloads = append(r.Workloads, snapshot.Workload{Namespace: "default", Name: name, ServiceAccount: name})
	}
	return r
}

// goesOn fails the test when the conversation has ended.
func (c *conversation) goesOn(t *testing.T) {
	t.Helper()
	select {
	case err := <-c.ended:
		t.Fatalf("the conversation ends: %v", err)
	default:
	}
}

// While a registration cannot be written, or it cannot be read who the node is, the conversation goes on and what the
// agent said before stays in force. What it says now comes into force when it is written, the newest of it, without
// another word of the agent's.
func TestRegistrationsWaitForTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := converse(t, snapshot.RoleNode)
		c.says(c.hosts("shop"), time.Second)
		want := func(when, name string) {
			t.Helper()
			c.goesOn(t)
			if got := c.workloads(); len(got) != 1 || got[0] != name {
				t.Errorf("%s, registered are %v, want %s", when, got, name)
			}
			if r, _ := c.agents.report("n1"); c.agents.known != nil && r.Workloads[0].Name != name {
				t.Errorf("%s, its report is %v, want %s", when, r.Workloads, name)
			}
		}
		c.agents.known = map[string]*agent{"n1": c.agent}
		want("at first", "shop")
		c.away(errors.New("no route to the database"))
		c.agents.Standing.Forget("n1") // who it is cannot be read either
		c.says(c.hosts("web"), time.Minute)
		want("while the state is away", "shop")
		c.says(c.hosts("store"), time.Minute)
		want("while the state is still away", "shop")
		c.away(nil)
		waittest.Advance(2 * time.Second)
		want("when the state is back", "store")

		c.away(errors.New("no route to the database"))
		c.says(c.hosts("web"), time.Minute)
		c.agents.Standing.End("g1")
		waittest.Advance(2 * time.Second)
		if err := <-c.ended; status.Code(err) != codes.PermissionDenied {
			t.Errorf("a node that was revoked meanwhile: %v", err)
		}
		close(c.reports)
	})
}

// What only counts is told to the other control planes every ten seconds at the most, the last of it too; everything
// else at once.
func TestCountersAreSharedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := converse(t, snapshot.RoleGateway)
		addr := netip.MustParseAddr("192.0.2.1")
		began := time.Now()
		for n := range uint64(26) { // 0 s to 25 s
			var r agentapi.Report
			r.Gateway = &snapshot.GatewayInfo{ServiceAccount: "gateway", InnerAddress: addr, OuterAddress: addr}
			r.Peers = map[string]agentapi.PeerCounts{"retail": {Requests: n}}
			r.Envoy = agentapi.EnvoyState{Running: true, Refused: 100 * n}
			if n >= 13 {
				r.Roots = []string{"next"}
			}
			c.says(r, time.Second)
		}
		waittest.Advance(time.Minute)
		c.goesOn(t)
		var at []time.Duration
		for _, one := range c.records {
			at = append(at, one.Sub(began).Round(time.Second))
		}
		s := time.Second
		want := []time.Duration{0, s, 11 * s, 13 * s, 23 * s, 33 * s} // the first, the first refusal, a root, the last
		if len(at) != len(want) {
			t.Fatalf("shared at %v, want %v", at, want)
		}
		for i := range at {
			if at[i] != want[i] {
				t.Fatalf("shared at %v, want %v", at, want)
			}
		}
		if last := c.shared[len(c.shared)-1]; last.Peers["retail"].Requests != 25 || last.Envoy.Refused != 2500 {
			t.Errorf("shared last: %+v", last)
		}
		close(c.reports)
		if err := <-c.ended; err != nil {
			t.Error(err)
		}
	})
}
