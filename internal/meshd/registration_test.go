package meshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/node/control"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/store"
)

// serving are the workloads behind a Service of namespace default, as the mesh in force has it.
func (p *plane) serving(host string) []string {
	p.t.Helper()
	var out []string
	if now := p.d.loop.Published(); now != nil {
		for _, e := range now.Mesh.Endpoints[model.EndpointSet{Host: host + ".default.svc.cluster.local", Port: 80}] {
			out = append(out, e.By.Name+"@"+e.Addr.String())
		}
	}
	return out
}

func (p *plane) served(what, host string, want ...string) {
	p.t.Helper()
	eventually(p.t, what, func() bool { return slices.Equal(p.serving(host), want) })
}

// A node that may host one service account takes no other service's requests: by its labels, its name, its addresses or
// its number.
func TestANodeSaysNotWhatItsWorkloadsAre(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	p.served("payments serves", "payments", "payments@10.0.0.2")

	label := workload("evil", "evil", "10.0.0.9")
	label.Labels = map[string]string{"app": "payments"}
	evil := p.agent("node-a", []string{"default/evil"}, label)
	eventually(t, "its label is a finding", func() bool { return p.found("ISM0242") != "" })
	contains(t, "the finding", p.found("ISM0242"), "workload default/evil", "node-a", "app=payments", "not granted")
	p.served("it serves under its own label alone", "payments", "payments@10.0.0.2")

	named := workload("payments", "evil", "10.0.0.9")
	evil.report(agentapi.Report{Workloads: []snapshot.Workload{named}})
	eventually(t, "its name is a finding", func() bool { return p.found("ISM0240") != "" })
	p.served("the name's owner stays", "payments", "payments@10.0.0.2")

	evil.report(agentapi.Report{Workloads: []snapshot.Workload{workload("evil", "evil", "10.0.0.2")}})
	eventually(t, "its address is a finding", func() bool { return p.found("ISM0244") != "" })
	contains(t, "the finding", p.found("ISM0244"), "node-a", "10.0.0.2", "workload default/payments on node node-b")
	if _, err := evil.sign("default", "evil"); err == nil {
		t.Error("a workload that is not registered has a certificate")
	}

	far := workload("evil", "evil", "192.0.2.1")
	evil.report(agentapi.Report{Workloads: []snapshot.Workload{far}})
	eventually(t, "an address that was not granted is a finding", func() bool { return p.found("ISM0241") != "" })

	var many []snapshot.Workload
	for i := range 400 {
		w := workload(fmt.Sprintf("evil-%d", i), "evil",
			netip.AddrFrom4([4]byte{10, 0, 1 + byte(i/250), byte(i % 250)}).String())
		w.Labels = map[string]string{"app": "payments"}
		many = append(many, w)
	}
	evil.report(agentapi.Report{Workloads: many})
	eventually(t, "their number is a finding", func() bool { return p.found("ISM0243") != "" })
	p.served("they take nothing", "payments", "payments@10.0.0.2")

	recorded := map[string]bool{}
	for _, e := range ask[adminapi.EventsResponse](t, p.local(), "Events",
		&adminapi.EventsRequest{Actor: "node node-a", Action: "node register", Limit: 1000}).Events {
		if e.Outcome != state.Refused || e.From != "127.0.0.1" {
			t.Errorf("recorded: %+v", e)
		}
		recorded[e.Object+" "+e.Detail[:min(7, len(e.Detail))]] = true
	}
	for _, want := range []string{
		"workload default/evil ISM0242", "workload default/payments ISM0240", "workload default/evil ISM0244",
		"workload default/evil ISM0241",
	} {
		if !recorded[want] {
			t.Errorf("%s is not recorded, but %v", want, recorded)
		}
	}
}

// Of two nodes that may both host a workload the first keeps it, whatever sorts first, also after a restart; the other
// has it as soon as the first gives it up.
func TestTheOlderRegistrationStands(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	old := p.agent("node-b", []string{"default/*"}, workload("payments", "payments", "10.0.0.2"))
	p.served("the first serves", "payments", "payments@10.0.0.2")
	young := p.agent("node-a", []string{"default/*"}, workload("payments", "payments", "10.0.0.1"))
	eventually(t, "the second is a finding", func() bool { return p.found("ISM0012") != "" })
	contains(t, "the finding", p.found("ISM0012"), "workload default/payments",
		"registered by node node-b and later by node node-a", "isthmus node revoke node-b")
	p.served("the first still serves", "payments", "payments@10.0.0.2")

	must(t, p.stop())
	p.start()
	again := p.resume(young.credential)
	again.report(agentapi.Report{Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.1")}})
	eventually(t, "the second is a finding again", func() bool { return p.found("ISM0012") != "" })
	p.served("the first serves after a restart", "payments", "payments@10.0.0.2")

	back := p.resume(old.credential)
	away := workload("payments", "payments", "10.0.0.2")
	away.Away, away.Netns = true, ""
	back.report(agentapi.Report{Workloads: []snapshot.Workload{away}})
	p.served("it keeps the name while it is away", "payments")
	if p.found("ISM0012") == "" {
		t.Error("the second has it then")
	}
	back.report(agentapi.Report{})
	p.served("the second has what the first gave up", "payments", "payments@10.0.0.1")
	eventually(t, "and nothing is wrong", func() bool { return p.found("ISM0012") == "" })

	back.report(agentapi.Report{Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.2")}})
	eventually(t, "now the first is the younger", func() bool { return p.found("ISM0012") != "" })
	ask[adminapi.RevokedNode](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	p.served("until the node that has it is revoked", "payments", "payments@10.0.0.2")
}

// What a node says on a stream is nothing once it has said something on a newer one.
func TestOlderStreamsAreOver(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	old := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.1"))
	p.served("the old stream", "payments", "payments@10.0.0.1")
	young := p.resume(old.credential)
	young.report(agentapi.Report{Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.2")}})
	p.served("the new stream", "payments", "payments@10.0.0.2")

	late := []snapshot.Workload{workload("payments", "payments", "10.0.0.1")}
	err := p.d.store.Register(t.Context(), 1, snapshot.Node{Name: "node-b", Role: snapshot.RoleNode}, late,
		func() error { return nil })
	if !errors.Is(err, store.ErrSuperseded) {
		t.Errorf("a report that was late on the first stream: %v", err)
	}
	p.served("nothing changes", "payments", "payments@10.0.0.2")
	select {
	case err := <-young.end:
		t.Errorf("the new stream ended: %v", err)
	default:
	}
}

// A gateway stands where it said that it stands when it had joined.
func TestAGatewayDoesNotMove(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	report := func(inner string) agentapi.Report {
		return agentapi.Report{Gateway: &snapshot.GatewayInfo{
			ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr(inner),
			OuterAddress: netip.MustParseAddr("198.51.100.1"),
		}}
	}
	stands := func(what, inner string) {
		t.Helper()
		eventually(t, what, func() bool {
			n, _, ok := p.d.store.Said("gw")
			return ok && n.Gateway != nil && n.Gateway.InnerAddress == netip.MustParseAddr(inner)
		})
	}
	c, err := p.join(p.token("gw", snapshot.RoleGateway, "isthmus-system/gateway"))
	must(t, err)
	gw := p.resume(c)
	gw.report(report("10.0.0.3"))
	stands("it stands where it says", "10.0.0.3")
	gw.report(report("10.0.0.4"))
	wantCode(t, "it moves", received(t, "it moves", gw.end), codes.InvalidArgument)
	events := ask[adminapi.EventsResponse](t, p.local(), "Events",
		&adminapi.EventsRequest{Action: "node register"}).Events
	if len(events) != 1 || events[0].Actor != "node gw" || events[0].Object != "gateway gw" {
		t.Errorf("recorded: %+v", events)
	}
	stands("it has not moved", "10.0.0.3")

	must(t, p.stop())
	p.start()
	gw = p.resume(c)
	gw.report(report("10.0.0.4"))
	wantCode(t, "it moves after a restart", received(t, "it moves after a restart", gw.end), codes.InvalidArgument)

	c, err = p.join(p.token("gw", snapshot.RoleGateway, "isthmus-system/gateway"))
	must(t, err)
	p.resume(c).report(report("10.0.0.4"))
	stands("with a new token it stands elsewhere", "10.0.0.4")
}

// A gateway whose settings say more than its token grants has no part in the mesh: the findings say so until it is put
// right.
func TestAGatewayThatIsRefusedIsFound(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	report := func(account string) agentapi.Report {
		return agentapi.Report{Gateway: &snapshot.GatewayInfo{
			ServiceAccount: account, InnerAddress: netip.MustParseAddr("10.0.0.3"),
			OuterAddress: netip.MustParseAddr("198.51.100.1"),
		}}
	}
	c, err := p.join(p.token("gw", snapshot.RoleGateway, "isthmus-system/edge"))
	must(t, err)
	gw := p.resume(c)
	gw.report(report("gateway"))
	end := received(t, "it is refused", gw.end)
	wantCode(t, "it is refused", end, codes.PermissionDenied)
	contains(t, "the refusal", end.Error(),
		"isthmus-system/gateway, but isthmus-system/edge: correct gateway.serviceAccount in its settings")
	eventually(t, "it is found", func() bool { return p.found("ISM0013") != "" })
	contains(t, "the finding", p.found("ISM0013"),
		"gateway gw serviceAccount: its token does not grant the service account isthmus-system/gateway; what it reports is refused")
	p.resume(c).report(report("edge"))
	eventually(t, "nothing is found any more", func() bool { return p.found("ISM0013") == "" })
}

// An agent hears what of its report does not stand, and why: its administrator reads its log, and not the mesh's
// findings.
func TestAgentHearsWhatDoesNotStand(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	thief := workload("thief", "thief", "10.0.0.2")
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	a.instructed("nothing to complain of", func(in *agentapi.Instructions) bool { return len(in.Refused) == 0 })
	a.report(agentapi.Report{
		Version:   "test",
		Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1"), thief},
	})
	a.instructed("the refusal", func(in *agentapi.Instructions) bool {
		return len(in.Refused) == 1 && strings.Contains(in.Refused[0], "ISM0013 error workload default/thief")
	})
	b := p.agent("node-b", []string{"default/*"}, workload("shop", "shop", "10.0.0.7"))
	b.instructed("the clash", func(in *agentapi.Instructions) bool {
		return len(in.Refused) == 1 && strings.Contains(in.Refused[0],
			"ISM0012 error workload default/shop: another workload")
	})
	b.report(agentapi.Report{Version: "test", Workloads: []snapshot.Workload{workload("guest", "guest", "10.0.0.1")}})
	b.instructed("another clash, and nothing of who has what", func(in *agentapi.Instructions) bool {
		text := strings.Join(in.Refused, " ")
		return strings.Contains(text, "ISM0244 error workload default/guest") && !strings.Contains(text, "node-a") &&
			!strings.Contains(text, "default/shop")
	})
	a.report(agentapi.Report{Version: "test", Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	a.instructed("that all stands", func(in *agentapi.Instructions) bool { return len(in.Refused) == 0 })
}

// However many streams the Envoys of a node hold open, its agent reports and has certificates signed.
func TestEnvoysDoNotStarveTheirAgent(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	dir := t.TempDir()
	must(t,
		os.WriteFile(filepath.Join(dir, "token"), []byte(p.token("node-a", snapshot.RoleNode, "default/payments")),
			0o600))
	agent := control.New(control.Config{
		Log: slog.New(slog.DiscardHandler), Node: "node-a", Role: snapshot.RoleNode,
		TokenFile: filepath.Join(dir, "token"), IdentityFile: filepath.Join(dir, "identity.pem"),
		Report: func() agentapi.Report {
			return agentapi.Report{Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.2")}}
		},
		Changed:      make(chan struct{}),
		Instructions: func(*agentapi.Instructions) {},
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	var running sync.WaitGroup
	running.Go(func() { _ = agent.Run(ctx) })
	defer running.Wait()
	defer stop()
	eventually(t, "it joins", func() bool { return agent.EnvoyConn() != nil })
	envoys := agent.EnvoyConn()
	for range maxStreams {
		_, err := agentapi.Client{Conn: envoys}.Sync(ctx) // as mute as an Envoy that has all it needs
		must(t, err)
	}
	full, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := (agentapi.Client{Conn: envoys}).Sync(full); err == nil {
		t.Fatal("the Envoys' connection carries one more stream")
	}
	p.served("it reports", "payments", "payments@10.0.0.2")
	eventually(t, "it is signed for", func() bool {
		_, err := agent.Sign(soon(t), "default", "payments")
		return err == nil
	})
}
