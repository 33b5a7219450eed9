//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/samples/probe"
)

const (
	itemsURL = "http://catalogue.default/items"
	watchURL = "http://payments.default/v1/charges/watch"

	// noticed is how long a wire that has gone dead may stay unnoticed, and a request on it unanswered.
	noticed = 20 * time.Second
)

// TestPartitionBetweenMeshes cuts the wire between the two gateways without a word to anybody: packets are dropped,
// both ways and one way, for longer than a peer's roots are good. Nothing hangs, nothing becomes plaintext, nothing
// local suffers, both sides say what is the matter, and all is well again without a command once the wire is back.
func TestPartitionBetweenMeshes(t *testing.T) {
	t.Parallel()
	s := raise(t, "isthmus-t-cut")
	canary := "Bearer canary-of-the-cut-wire"
	wire := sniff(t, s.prefix+"-link", canary)

	t.Run("both ways", func(t *testing.T) {
		load, local := s.crossing(canary),
			s.begin(probe.Load{
				HTTP: probe.HTTP{Method: "GET", URL: itemsURL, Timeout: time.Minute}, Workers: 2,
				Pause: 20 * time.Millisecond,
			})
		long := s.probe("storefront", probe.Request{Watch: &probe.HTTP{Method: "GET", URL: watchURL}})
		if r := long.next(t); !r.Began || r.Status != 200 {
			t.Fatalf("the long answer did not begin: %+v", r)
		}
		waittest.Quiet(time.Second)
		heal := s.cut(t, "cards-gw", "eth1", 0)
		also := s.cut(t, "retail-gw", "eth1", 0)
		began := time.Now()
		r := long.next(t)
		t.Logf("a long answer ended after %s: %s", r.Time.Sub(began).Round(time.Millisecond), r.Error)
		if r.Time.Sub(began) > noticed {
			t.Error("it hung")
		}
		unharmed(t, local.finish(t), 200)
		bounded(t, load.finish(t))
		s.told(t)
		need(t, errors.Join(heal(), also()))
		s.well(t)
	})

	t.Run("one way, until the roots are stale", func(t *testing.T) {
		s.ageLimit("retail", "cards", "20s")
		within(t, 10*time.Second, "the age limit, and a bundle within it", func() error {
			return s.condition("retail", "cards", "BundleFresh", "True", "refused when older than 20s")
		})
		local := s.begin(probe.Load{
			HTTP: probe.HTTP{Method: "GET", URL: itemsURL, Timeout: time.Minute}, Workers: 2,
			Pause: 50 * time.Millisecond,
		})
		load := s.crossing(canary)
		heal := s.cut(t, "retail-gw", "eth1", 0) // retail hears nothing more; cards hears all
		need(t, os.WriteFile(filepath.Join(s.dir, "cards", "config", "more.yaml"), []byte(moreExport), 0o644))
		waittest.Quiet(noticed - 3*time.Second)
		bounded(t, load.finish(t))
		took := within(t, 15*time.Second, "stale roots",
			func() error { return s.condition("retail", "cards", "DataPathReady", "False", "more than 20s ago") })
		t.Logf("stale after %s more", took.Round(time.Millisecond))
		within(t, 5*time.Second, "refused at once", func() error {
			if r := s.get("storefront", paymentsURL, time.Minute); r.Status == 200 || r.Elapsed > time.Second {
				return fmt.Errorf("%d after %s: %s%s", r.Status, r.Elapsed, r.Error, r.Body)
			}
			return nil
		})
		need(t, s.condition("cards", "retail", "CatalogueSynced", "False", "lacks our newest catalogue"))
		unharmed(t, local.finish(t), 200)
		need(t, heal())
		s.well(t)
		within(t, 10*time.Second, "what was exported meanwhile", func() error {
			c := query[adminapi.CatalogueResponse](t, s, "catalogue", "-o", "json", "--socket", s.socket("retail"))
			if len(c.Entries) != 2 {
				return fmt.Errorf("retail is offered %v", c.Entries)
			}
			return nil
		})
	})
	if n := wire.sighted.Load(); n > 0 || wire.frames.Load() < 100 {
		t.Errorf("%d of %d frames on the link were readable: %s", n, wire.frames.Load(), wire.first)
	}
}

// moreExport is the same service under another name.
const moreExport = `apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: more, namespace: default}
spec:
  service: payments
  port: 80
  alias: more
  to: [{peer: retail, rules: [{methods: [GET]}]}]
`

// crossing is load through both gateways, with patience.
func (s *strip) crossing(canary string) *flow {
	return s.begin(probe.Load{
		HTTP: probe.HTTP{
			Method: "GET", URL: paymentsURL, Headers: map[string]string{"authorization": canary},
			Timeout: time.Minute,
		},
		Workers: 6, Pause: 50 * time.Millisecond,
	})
}

// bounded: requests failed, as they must, and not one hung.
func bounded(t *testing.T, r probe.Result) {
	t.Helper()
	t.Logf("%d requests, %d failed, the slowest took %s, the first: %s", r.Requests, r.Failures,
		r.Slowest.Round(time.Millisecond), r.FirstFailure())
	if r.Failures == 0 || r.Slowest > noticed {
		t.Errorf("%d failures, the slowest took %s", r.Failures, r.Slowest)
	}
}

func unharmed(t *testing.T, r probe.Result, least int) {
	t.Helper()
	if r.Failures > 0 || r.Requests < least {
		t.Errorf("beside the partition %d of %d requests failed, the first: %s", r.Failures, r.Requests,
			r.FirstFailure())
	}
}

// told: both sides say that the other does not answer, and how old its roots are.
func (s *strip) told(t *testing.T) {
	t.Helper()
	within(t, noticed, "both sides say so", func() error {
		return errors.Join(
			s.condition("retail", "cards", "DataPathReady", "False", ""),
			s.condition("retail", "cards", "BundleFresh", "", "fetch bundle"),
			s.condition("cards", "retail", "DataPathReady", "False", "does not answer through both gateways"))
	})
	for _, p := range query[adminapi.PeerListResponse](t, s, "peer", "status", "-o", "json", "--socket",
		s.socket("retail")).Peers {
		if age := time.Since(p.BundleTime); age < 8*time.Second {
			t.Errorf("retail says that the roots of %s are %s old", p.Name, age)
		}
	}
}

// well: the wire is back, and nobody was asked to do anything about it.
func (s *strip) well(t *testing.T) {
	t.Helper()
	took := within(t, noticed, "served again", s.served)
	t.Logf("served again after %s", took.Round(time.Millisecond))
	within(t, noticed, "both sides say so", func() error {
		return errors.Join(
			s.condition("retail", "cards", "DataPathReady", "True", ""),
			s.condition("retail", "cards", "BundleFresh", "True", "confirmed"),
			s.condition("cards", "retail", "DataPathReady", "True", ""),
			s.condition("cards", "retail", "CatalogueSynced", "True", ""))
	})
	load := s.crossing("none")
	waittest.Quiet(time.Second)
	unharmed(t, load.finish(t), 50)
}

// condition says how a peer's condition differs from what is wanted; an empty status fits any.
func (s *strip) condition(mesh, peer, kind, status, says string) error {
	var list adminapi.PeerListResponse
	if err := s.read(&list, "peer", "status", peer, "-o", "json", "--socket", s.socket(mesh)); err != nil {
		return err
	}
	for _, c := range list.Peers[0].Conditions {
		if c.Type == kind && (status == "" || c.Status == status) && strings.Contains(c.Message, says) {
			return nil
		}
	}
	i := slices.IndexFunc(list.Peers[0].Conditions, func(c adminapi.Condition) bool { return c.Type == kind })
	return fmt.Errorf("%s says of %s: %+v", mesh, peer, list.Peers[0].Conditions[i])
}

// ageLimit lets a mesh know its peer by a file that says how old the peer's roots may grow.
func (s *strip) ageLimit(mesh, peer, limit string) {
	s.t.Helper()
	text, err := s.isthmus("peer", "manifest", "--as", peer, "--known-as", mesh, "--socket", s.socket(peer))
	need(s.t, err)
	file := strings.Replace(string(text), "\nspec:\n", "\nspec:\n  maxBundleAge: "+limit+"\n", 1)
	need(s.t, os.WriteFile(filepath.Join(s.dir, mesh, "config", "peer.yaml"), []byte(file), 0o644))
}

// cut drops what arrives at a device of a namespace of the demo, or only what comes from a TCP port; the function that
// it returns lets everything pass again.
func (s *strip) cut(t *testing.T, netns, device string, port uint16) (heal func() error) {
	t.Helper()
	var c *nftables.Conn
	need(t, lab.Inside(s.prefix+"-"+netns, func() (err error) {
		c, err = nftables.New(nftables.AsLasting()) // the socket belongs to the namespace
		return err
	}))
	table := c.AddTable(&nftables.Table{Name: "isthmus-t-cut", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityFilter,
	})
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	match := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: name},
	}
	if port != 0 {
		match = append(match,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{byte(port >> 8), byte(port)}})
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match, &expr.Verdict{Kind: expr.VerdictDrop})})
	need(t, c.Flush())
	return func() error {
		c.DelTable(table)
		return errors.Join(c.Flush(), c.CloseLasting())
	}
}
