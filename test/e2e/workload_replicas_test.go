//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestTwoControlPlanes runs one mesh with two control planes on one PostgreSQL, and nodes that are attached to
// different ones. What is written to the folder and who is revoked at one reaches the Envoys of both. Then one of them
// is killed under load: not one call fails, its agent comes over to the other, what it acknowledged holds, and
// endpoints and policies go on changing.
func TestTwoControlPlanes(t *testing.T) {
	t.Parallel()
	database := pgtest.Shared(t).Database(t)
	front := []member{caller("alice"), server("pair"), server("pool-1")}
	back := []member{caller("carol"), server("steady"), server("pool-2")}
	s := openShop(t, strings.Replace(shopMesh, "certificateTTL: 10s", "certificateTTL: 5m", 1),
		map[string][]member{"front": front, "back": back, "third": {server("web")}}, func(s *shop) {
			s.database, s.attached = &database, map[string]string{"back": "second"}
		})
	within(t, 10*time.Second, "nodes at both control planes", func() error {
		return errors.Join(s.attachedTo("control", "front", "third"), s.attachedTo("second", "back"))
	})
	s.write(t, "open.yaml", policy("default", "open-web", "selector: {matchLabels: {app: web}}\nrules: [{}]")+
		policy("default", "open-pair", "selector: {matchLabels: {app: pair}}\nrules: [{}]")+
		policy("default", "open-pool", "selector: {matchLabels: {app: pool}}\nrules: [{}]"))
	callers := []string{"alice", "carol"}
	each := func(service, path string, want int) func() error {
		return func() (err error) {
			for _, from := range callers {
				err = errors.Join(err, s.expect(want, s.get(from, service, path)))
			}
			return err
		}
	}
	for _, service := range []string{"web", "pair", "pool"} {
		within(t, 10*time.Second, "everybody may call "+service, each(service, "/", 200))
	}
	loads := []*load{s.startLoad(t, "alice", "steady", 40), s.startLoad(t, "carol", "pair", 40)}

	s.write(t, "closed.yaml", closedPath("/closed"))
	took := within(t, 10*time.Second, "a policy at both", each("pair", "/closed", 403))
	t.Logf("a policy was in force at both nodes after %s", took.Round(time.Millisecond))
	within(t, 10*time.Second, "a policy at both", func() error {
		return s.expect(403, s.get("alice", "steady", "/closed"))
	})

	_, err := overSocket[adminapi.NodeRequest, adminapi.RevokedNode](t.Context(), s.path("second.sock"),
		10*time.Second, "RevokeNode", &adminapi.NodeRequest{Node: "third"})
	need(t, err)
	took = within(t, 10*time.Second, "nobody calls who is revoked", each("web", "/", 403))
	t.Logf("the callers at both control planes left a revoked node alone after %s", took.Round(time.Millisecond))

	s.procs["control"].Kill()
	killed := time.Now()
	took = within(t, waittest.Patience, "the agent is at the other control plane", func() error {
		return s.attachedTo("second", "front", "back")
	})
	t.Logf("its agent and Envoy came over within %s", took.Round(time.Millisecond))
	_, csr, err := identity.NewRequest()
	need(t, err)
	for _, node := range []string{"front", "third"} { // used, and of a node that was revoked
		token, err := identity.LoadToken(s.path(node + ".token"))
		need(t, err)
		_, err = agentapi.Client{Conn: s.dialPlane(t, "second", identity.AttestTLS(token))}.Attest(t.Context(),
			&agentapi.AttestRequest{Token: token.Secret(), CSR: csr})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("the token of %s again: %v", node, err)
		}
	}
	if err := each("web", "/", 403)(); err != nil {
		t.Errorf("after the control plane was killed that knew nothing of the revocation: %v", err)
	}
	s.app("pool-1:8080").sick.Store(true)
	took = within(t, 10*time.Second, "an endpoint that is not ready is left alone", func() error {
		s.app("pool-1:8080").arrived()
		for range 5 {
			if err := each("pool", "/", 200)(); err != nil {
				return err
			}
		}
		if n := len(s.app("pool-1:8080").arrived()); n > 0 {
			return fmt.Errorf("it is asked %d times", n)
		}
		return nil
	})
	t.Logf("an endpoint was left alone after %s", took.Round(time.Millisecond))
	s.app("pool-1:8080").sick.Store(false)
	within(t, 10*time.Second, "and asked again", func() error { return s.asked("pool-1", "pool-2") })
	s.write(t, "closed.yaml", closedPath("/shut"))
	within(t, 10*time.Second, "another policy at both", func() error {
		return errors.Join(each("pair", "/shut", 403)(), each("pair", "/closed", 200)(),
			s.expect(403, s.get("alice", "steady", "/shut")))
	})
	if rest := 8*time.Second - time.Since(killed); rest > 0 {
		waittest.Quiet(rest) // the lease of the one that was killed has ended
	}
	st, err := s.statusOf(t.Context(), "second")
	need(t, err)
	for _, f := range st.Findings {
		if f.Code == "ISM0300" {
			t.Error(f)
		}
	}
	sent := 0
	for _, l := range loads {
		sent += l.stop(t)
	}
	t.Logf("%d calls, none failed", sent)
}

// closedPath refuses a path of two servers, one on each node.
func closedPath(path string) string {
	var all strings.Builder
	for _, app := range []string{"pair", "steady"} {
		all.WriteString(policy("default", "closed-"+app, "selector: {matchLabels: {app: "+app+
			"}}\naction: DENY\nrules: [{to: [{operation: {paths: ["+path+"]}}]}]"))
	}
	return all.String()
}

// server is a member of the shop by its name.
func server(name string) member {
	for _, m := range servers {
		if m.name == name {
			return m
		}
	}
	panic("no such server: " + name)
}

func (s *shop) startSecond(t *testing.T) {
	t.Helper()
	need(t, s.runPlane(t, "second"))
	within(t, 10*time.Second, "the second control plane answers", func() error {
		_, err := s.statusOf(t.Context(), "second")
		return err
	})
}

func (s *shop) statusOf(ctx context.Context, plane string) (*adminapi.StatusResponse, error) {
	return overSocket[adminapi.Empty, adminapi.StatusResponse](ctx, s.path(plane+".sock"), 5*time.Second, "Status",
		&adminapi.Empty{})
}

// attachedTo says which of some nodes' proxies do not have from a control plane what they should.
func (s *shop) attachedTo(plane string, nodes ...string) error {
	st, err := s.statusOf(context.Background(), plane)
	if err != nil {
		return err
	}
	at := map[string]adminapi.ProxyStatus{}
	for _, p := range st.Proxies {
		at[p.Name] = p
	}
	var wrong []error
	for _, node := range nodes {
		if p := at[node]; !p.Connected || len(p.Types) == 0 {
			wrong = append(wrong, fmt.Errorf("%s is not at %s", node, plane))
		} else {
			wrong = append(wrong, inStep(p))
		}
	}
	return errors.Join(wrong...)
}

// hereOrThere is each proxy as the control plane sees it that it is attached to.
func hereOrThere(here, there []adminapi.ProxyStatus) []adminapi.ProxyStatus {
	out := append([]adminapi.ProxyStatus{}, here...)
	for i, p := range out {
		for _, q := range there {
			if q.Name == p.Name && len(p.Types) == 0 {
				out[i] = q
			}
		}
	}
	return out
}
