package xds

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/envoy"
)

// same fails the test when two values differ.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestWildcardGetsEverythingInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told([]string{"x"}, cluster("c1", "1", "x:80"), cluster("c2", "1", ""), listener("l1", "1"),
			res(envoy.RouteType, "r1", "1")))
		s.PublishEndpoints(endpoints("x:80", "1"))
		c := dial(t, s, "a")
		c.begin()
		same(t, "the opening", c.quiet(), []string{"CDS +c1 +c2", "LDS +l1"})
		c.want(envoy.EndpointType, "x:80")
		c.want(envoy.RouteType, "r1")
		same(t, "what it asks for next", c.quiet(), []string{"EDS +x:80", "RDS +r1"})
		same(t, "afterwards", c.quiet(), nil)
	})
}

func TestEmptyWildcardIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil))
		c := dial(t, s, "a")
		c.begin()
		same(t, "the opening", c.quiet(), []string{"CDS", "LDS"}) // Envoy waits for both before it starts its workers
	})
}

func TestMissingNameIsSaidOnceThenCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, res(envoy.RouteType, "other", "1")))
		c := dial(t, s, "a")
		c.want(envoy.RouteType, "r1")
		same(t, "a name that is not there", c.quiet(), []string{"RDS -r1"})
		s.Publish("a", 2, told(nil, res(envoy.RouteType, "other", "22")))
		same(t, "an unrelated change", c.quiet(), nil)
		s.Publish("a", 3, told(nil, res(envoy.RouteType, "r1", "1")))
		same(t, "the name comes", c.quiet(), []string{"RDS +r1"})
		s.Publish("a", 4, told(nil))
		same(t, "the name goes", c.quiet(), []string{"RDS -r1"})
		s.Publish("a", 5, told(nil))
		same(t, "and stays away", c.quiet(), nil)
	})
}

func TestMissingNameBesideAWildcard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		c := dial(t, s, "a")
		c.want(envoy.ListenerType, "*", "l9")
		same(t, "wildcard and a name", c.quiet(), []string{"LDS +l1 -l9"})
	})
}

func TestReconnectWithTheSameSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told([]string{"x"}, cluster("c1", "1", "x:80"), cluster("c2", "1", ""), listener("l1", "1"),
			res(envoy.RouteType, "r1", "1")))
		s.PublishEndpoints(endpoints("x:80", "1"))
		c := dial(t, s, "a")
		c.begin()
		c.want(envoy.EndpointType, "x:80")
		c.want(envoy.RouteType, "r1")
		c.quiet()
		c.hangUp()
		again := c.resume(s, "a")
		same(t, "unchanged", again.quiet(), nil)
		for _, ts := range s.Status()[0].Types {
			if ts.Sent != 1 || ts.Acked != 1 || ts.Resources != len(c.has[typeURL(ts.Type)]) {
				t.Errorf("status of %s after an unchanged reconnect: %+v", ts.Type, ts)
			}
		}
		again.hangUp()
		synctest.Wait()
		s.Publish("a", 2, told([]string{"x"}, cluster("c1", "1", "x:80"), cluster("c3", "1", ""), listener("l1", "22"),
			res(envoy.RouteType, "r1", "1")))
		same(t, "changed while away", again.resume(s, "a").quiet(), []string{"CDS +c3", "LDS +l1", "CDS -c2"})
	})
}

func typeURL(short string) string {
	for _, t := range envoy.Types {
		if ShortType(t) == short {
			return t
		}
	}
	return ""
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, cluster("c1", "1", ""), cluster("c2", "1", ""), listener("l1", "1")))
		c := dial(t, s, "a")
		c.begin()
		c.quiet()
		s.Publish("a", 2, told(nil, cluster("c1", "1", ""), cluster("c2", "22", ""), listener("l1", "1")))
		same(t, "one cluster changed", c.quiet(), []string{"CDS +c2"})
	})
}

// A cluster goes only when no listener or route that Envoy has can refer to it.
func TestClustersGoLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, cluster("c1", "1", ""), listener("l1", "c1"), res(envoy.RouteType, "r1", "c1")))
		c := dial(t, s, "a")
		c.begin()
		c.want(envoy.RouteType, "r1")
		c.quiet()
		s.Publish("a", 2, told(nil, cluster("c2", "1", ""), listener("l1", "c2!"), res(envoy.RouteType, "r1", "c2!")))

		add := c.next()
		same(t, "new clusters come first", add.TypeUrl, envoy.ClusterType)
		same(t, "and nothing goes with them", add.RemovedResources, nil)
		if r := c.next(); r != nil {
			t.Fatalf("%s was sent before the clusters were answered", ShortType(r.TypeUrl))
		}
		c.answer(add)
		l, r := c.next(), c.next()
		same(t, "then listeners and routes", []string{ShortType(l.TypeUrl), ShortType(r.TypeUrl)},
			[]string{"LDS", "RDS"})
		c.answer(l)
		if x := c.next(); x != nil {
			t.Fatalf("%s was sent before the routes were answered", ShortType(x.TypeUrl))
		}
		c.answer(r)
		c.log = nil
		same(t, "last, the old cluster goes", c.quiet(), []string{"CDS -c1"})
	})
}

func TestListenersWaitForEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("x:80", "1"))
		s.Publish("a", 1, told([]string{"x"}, cluster("c1", "1", "x:80"), listener("l1", "1")))
		c := dial(t, s, "a")
		c.want(envoy.ClusterType)
		cds := c.next()
		c.want(envoy.ListenerType)
		c.want(envoy.EndpointType, "x:80") // Envoy asks for a new cluster's endpoints before it answers
		eds := c.next()
		c.answer(cds)
		if r := c.next(); r != nil {
			t.Fatalf("%s was sent before the endpoints were answered", ShortType(r.TypeUrl))
		}
		c.answer(eds)
		c.log = nil
		same(t, "then the listener", c.quiet(), []string{"LDS +l1"})
	})
}

func TestChangedClusterGetsItsEndpointsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("x:80", "1"))
		s.Publish("a", 1, told([]string{"x"}, cluster("c1", "1", "x:80")))
		c := dial(t, s, "a")
		c.begin()
		c.want(envoy.EndpointType, "x:80")
		c.quiet()
		s.Publish("a", 2, told([]string{"x"}, cluster("c1", "22", "x:80")))
		same(t, "changed", c.quiet(), []string{"CDS +c1", "EDS +x:80"})
		// A second cluster of the same set waits too, and Envoy does not ask for a set that it has.
		s.Publish("a", 3, told([]string{"x"}, cluster("c1", "22", "x:80"), cluster("c2", "1", "x:80")))
		same(t, "shared", c.quiet(), []string{"CDS +c2", "EDS +x:80"})
	})
}

// An Envoy that connects again asks for clusters first. What it has then does not keep a new cluster from its
// endpoints.
func TestNewClusterGetsItsEndpointsOnAnotherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("x:80", "1"))
		s.Publish("a", 1, told([]string{"x"}, cluster("c1", "1", "x:80")))
		c := dial(t, s, "a")
		c.begin()
		c.want(envoy.EndpointType, "x:80")
		c.quiet()
		c.hangUp()
		s.Publish("a", 2, told([]string{"x"}, cluster("c1", "1", "x:80"), cluster("c2", "1", "x:80")))
		n := dial(t, s, "a")
		n.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                 envoy.ClusterType,
			InitialResourceVersions: maps.Clone(c.has[envoy.ClusterType]),
		})
		cds := n.next() // before Envoy has said which sets it has
		n.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: envoy.EndpointType, InitialResourceVersions: maps.Clone(c.has[envoy.EndpointType]),
			ResourceNamesSubscribe: []string{"x:80"},
		})
		n.answer(cds)
		same(t, "on the new stream", n.quiet(), []string{"CDS +c2", "EDS +x:80"})
		n.want(envoy.ListenerType)
		n.quiet()
		s.Publish("a", 3, told([]string{"x"}, cluster("c1", "1", "x:80"), cluster("c2", "1", "x:80"),
			cluster("c3", "1", "x:80")))
		same(t, "later", n.quiet(), []string{"CDS +c3", "EDS +x:80"})
	})
}

func TestRefusedResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		c := dial(t, s, "a")
		c.refuse["c1"] = "Error adding/updating cluster(s) c1: bad"
		s.Publish("a", 1, told(nil, cluster("c1", "bad", ""), cluster("c2", "1", "")))
		c.begin()
		same(t, "at first", c.quiet(), []string{"CDS !c1 +c2", "LDS"})
		nack := func(want string) {
			t.Helper()
			cds := s.Status()[0].Types[0]
			if cds.Type != "CDS" || cds.Nack != want || (cds.Acked == cds.Sent) != (want == "") {
				t.Errorf("status %+v, want the refusal %q", cds, want)
			}
		}
		nack("Error adding/updating cluster(s) c1: bad")
		s.Publish("a", 2, told(nil, cluster("c1", "bad", ""), cluster("c2", "22", "")))
		same(t, "another cluster changes", c.quiet(), []string{"CDS +c2"})
		nack("Error adding/updating cluster(s) c1: bad") // c1 is still refused
		s.PublishEndpoints(endpoints("x:80", "1"))
		same(t, "nothing changes", c.quiet(), nil)
		delete(c.refuse, "c1")
		s.Publish("a", 3, told(nil, cluster("c1", "good", ""), cluster("c2", "22", "")))
		same(t, "mended", c.quiet(), []string{"CDS +c1"})
		nack("")
	})
}

func TestRefusedResourceRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		c := dial(t, s, "a")
		c.refuse["l1"] = "no"
		s.Publish("a", 1, told(nil, listener("l1", "bad")))
		c.begin()
		c.quiet()
		s.Publish("a", 2, told(nil))
		same(t, "gone", c.quiet(), []string{"LDS -l1"})
		for _, ts := range s.Status()[0].Types {
			if ts.Nack != "" || ts.Sent != ts.Acked || ts.Sent != 2 {
				t.Errorf("status of %s: %+v", ts.Type, ts)
			}
		}
	})
}

func TestStatusSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		c := dial(t, s, "a")
		c.begin()
		c.want(envoy.RouteType, "r1")
		c.want(envoy.EndpointType, "x:80")
		c.want(envoy.SecretType, "bundle/x")
		for g := uint64(1); g <= 5; g++ {
			s.Publish("a", g, told([]string{"x"}, cluster("c1", "1", "x:80"), listener("l1", string(rune('0'+g))),
				res(envoy.RouteType, "r1", "1")))
			s.PublishEndpoints(endpoints("x:80", string(rune('0'+g))))
			c.quiet()
			st := s.Status()[0]
			if len(st.Types) != 5 || !st.Connected || st.Name != "a" {
				t.Fatalf("status %+v", st)
			}
			for _, ts := range st.Types {
				if ts.Sent != g || ts.Acked != g || ts.Nack != "" {
					t.Errorf("generation %d, %s: sent %d acked %d nack %q", g, ts.Type, ts.Sent, ts.Acked, ts.Nack)
				}
			}
		}
	})
}

func TestNewStreamTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		old := dial(t, s, "a")
		old.begin()
		old.quiet()
		young := dial(t, s, "a")
		young.begin()
		same(t, "the young one", young.quiet(), []string{"CDS", "LDS +l1"})
		same(t, "the old one's end", status.Code(old.end()), codes.Aborted)
		s.Publish("a", 2, told(nil, listener("l1", "22")))
		same(t, "a change", young.quiet(), []string{"LDS +l1"})
		same(t, "connected", s.Status()[0].Connected, true)
	})
}

func TestForgetEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		c := dial(t, s, "a")
		c.begin()
		c.quiet()
		s.Forget("a")
		same(t, "its end", status.Code(c.end()), codes.Aborted)
		same(t, "known", s.Known(), nil)
		back := dial(t, s, "a")
		back.begin()
		same(t, "when it comes back", back.quiet(), nil)
	})
}

func TestEnvoyBeforeItsAgentRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		c := dial(t, s, "a")
		c.begin()
		same(t, "nothing to say yet", c.quiet(), nil)
		same(t, "known", s.Known(), nil)
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		same(t, "then", c.quiet(), []string{"CDS", "LDS +l1"})
	})
}

func TestUnidentifiedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		p := &pipe{ctx: t.Context()}
		if err := s.DeltaAggregatedResources(p); err == nil || err.Error() != "who is this?" {
			t.Errorf("the end was %v", err)
		}
	})
}

func TestEndpointsReachTheirSubscribersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("x:80", "1"))
		s.PublishEndpoints(endpoints("y:80", "1"))
		s.Publish("a", 1, told([]string{"x"}))
		s.Publish("b", 1, told([]string{"y"}))
		a, b := dial(t, s, "a"), dial(t, s, "b")
		a.want(envoy.EndpointType, "x:80")
		b.want(envoy.EndpointType, "y:80")
		a.quiet()
		b.quiet()
		s.PublishEndpoints(endpoints("x:80", "22"))
		same(t, "who is woken", len(s.proxies["b"].stream.awake), 0)
		same(t, "a", a.quiet(), []string{"EDS +x:80"})
		same(t, "b", b.quiet(), nil)
		s.PublishEndpoints(map[string]*envoy.Resource{"x:80": nil})
		same(t, "a set goes", a.quiet(), []string{"EDS -x:80"})
	})
}

// A proxy that may not call a service learns nothing of it by asking.
func TestEndpointsNeedToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("secret:80", "1"))
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		s.Publish("b", 1, told([]string{"secret"}, res(envoy.SecretType, "s", "1"), listener("of b", "1")))
		c := dial(t, s, "a")
		c.want(envoy.EndpointType, "secret:80", "invented:80")
		same(t, "there or not looks the same", c.quiet(), []string{"EDS -invented:80 -secret:80"})
		s.PublishEndpoints(endpoints("secret:80", "22"))
		same(t, "its changes", c.quiet(), nil)
		c.want(envoy.SecretType, "s", "*")
		c.want(envoy.ListenerType, "of b", "*")
		c.want(envoy.EndpointType, "*")
		same(t, "other proxies' resources", c.quiet(), []string{"SDS -s", "LDS +l1 -of b"})
		s.Publish("a", 2, told([]string{"secret"}, listener("l1", "1")))
		same(t, "once it may", c.quiet(), []string{"EDS +secret:80"})
		s.Publish("a", 3, told(nil, listener("l1", "1")))
		same(t, "and no longer", c.quiet(), []string{"EDS -secret:80"})
	})
}

func TestLargeConfigurationComesInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		big := string(make([]byte, 1<<20))
		s.Publish("a", 1, told(nil, cluster("c1", big, ""), cluster("c2", big, ""), cluster("c3", big, ""),
			listener("l1", "1")))
		c := dial(t, s, "a")
		c.begin()
		first := c.next()
		same(t, "the first part", len(first.Resources), 2)
		if st := s.Status()[0].Types[0]; st.Acked != 0 {
			t.Errorf("acknowledged before anything was: %+v", st)
		}
		c.answer(first)
		synctest.Wait()
		if st := s.Status()[0].Types[0]; st.Acked == st.Sent {
			t.Errorf("acknowledged when the first part was: %+v", st)
		}
		same(t, "all", c.quiet(), []string{"CDS +c1 +c2", "CDS +c3", "LDS +l1"})
		if st := s.Status()[0].Types[0]; st.Acked != 1 || st.Sent != 1 || st.Resources != 3 {
			t.Errorf("status at the end: %+v", st)
		}
	})
}

func TestUnsubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PublishEndpoints(endpoints("x:80", "1"))
		s.Publish("a", 1, told([]string{"x"}))
		c := dial(t, s, "a")
		c.want(envoy.EndpointType, "x:80")
		c.quiet()
		c.send(unsubscribe(envoy.EndpointType, "x:80"))
		same(t, "unsubscribing", c.quiet(), nil)
		s.PublishEndpoints(endpoints("x:80", "22"))
		same(t, "no longer", c.quiet(), nil)
		same(t, "subscribers", len(s.subscribers), 0)
		c.want(envoy.EndpointType, "x:80")
		same(t, "again", c.quiet(), []string{"EDS +x:80"})
		c.hangUp()
		synctest.Wait()
		same(t, "subscribers when all went", len(s.subscribers), 0)
	})
}

// TestManyNames: an Envoy may ask for all that it was told of, however many; beside that, invented names have a bound.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		names := make([]string, maxNames+500)
		for i := range names {
			names[i] = fmt.Sprintf("set-%d:80", i)
		}
		s.Publish("large", 1, told(names))
		s.Publish("small", 1, told(nil))
		large, small := dial(t, s, "large"), dial(t, s, "small")
		large.want(envoy.EndpointType, names...)
		small.want(envoy.EndpointType, names...)
		if !large.open() {
			t.Errorf("who asks for what it was told of is cut off: %v", large.end())
		}
		if small.open() {
			t.Error("who asks for invented names is not")
		}
	})
}
