package xds

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/waittest"
)

func unsubscribe(typ string, names ...string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesUnsubscribe: names}
}

func invented(n, length int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i) + strings.Repeat("x", max(0, length-8))
	}
	return out
}

func TestUnknownTypeEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil))
		c := dial(t, s, "a")
		c.want("type.googleapis.com/envoy.config.core.v3.Nonsense")
		same(t, "its end", status.Code(c.end()), codes.InvalidArgument)
	})
}

func TestTooManyNames(t *testing.T) {
	for name, ask := range map[string]func(c *client){
		"at once": func(c *client) { c.want(envoy.EndpointType, invented(1_000_000, 0)...) },
		"one by one": func(c *client) {
			for i := range 12 {
				c.want(envoy.RouteType, invented(1000, 8+i)...)
			}
			waittest.Advance(5 * time.Minute) // it is let in as slowly as its names cost
		},
		"a long one": func(c *client) { c.want(envoy.SecretType, strings.Repeat("x", 1<<20)) },
		"as had": func(c *client) {
			had := map[string]string{}
			for _, n := range invented(200_000, 0) {
				had[n] = "v"
			}
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ClusterType, InitialResourceVersions: had})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.Publish("a", 1, told(nil))
				c := dialWindow(t, s, "a", 0)
				ask(c)
				waittest.Advance(10 * time.Second)
				if code := status.Code(c.end()); code != codes.ResourceExhausted && code != codes.InvalidArgument {
					t.Errorf("the stream ended with %s", code)
				}
				same(t, "subscribers left", len(s.subscribers), 0)
			})
		})
	}
}

// An answer counts only with the nonce of the response that waits for it.
func TestForgedNonces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, cluster("c1", "1", ""), listener("l1", "1")))
		c := dial(t, s, "a")
		c.begin()
		cds := c.next()
		for _, nonce := range []string{"", "0", "999", "\x00", cds.Nonce + "0", strings.Repeat("9", 1000)} {
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ClusterType, ResponseNonce: nonce})
			c.send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: envoy.ClusterType, ResponseNonce: nonce, ErrorDetail: &rpcstatus.Status{Message: "forged"},
			})
			// of another type
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ListenerType, ResponseNonce: cds.Nonce})
		}
		if r := c.next(); r != nil {
			t.Fatalf("%s was sent after forged answers", ShortType(r.TypeUrl))
		}
		if st := s.Status()[0].Types[0]; st.Acked != 0 || st.Nack != "" {
			t.Errorf("forged answers were counted: %+v", st)
		}
		c.answer(cds)
		c.answer(c.next())
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: envoy.ClusterType, ResponseNonce: cds.Nonce, ErrorDetail: &rpcstatus.Status{Message: "replayed"},
		})
		c.quiet()
		if st := s.Status()[0].Types[0]; st.Acked != 1 || st.Nack != "" {
			t.Errorf("a replayed answer was counted: %+v", st)
		}
	})
}

// One client that does not read holds up nobody, keeps nothing but its own stream, and loses that.
func TestNonReadingClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		for _, name := range []string{"bad", "good"} {
			s.Publish(name, 1, told([]string{"x"}, cluster("c1", "1", "x:80"), listener("l1", "1")))
		}
		s.PublishEndpoints(endpoints("x:80", "1"))
		bad, good := dialWindow(t, s, "bad", 0), dial(t, s, "good")
		for _, c := range []*client{bad, good} {
			c.begin()
			c.want(envoy.EndpointType, "x:80")
		}
		good.quiet()
		for i := range 100 {
			begun := time.Now()
			s.PublishEndpoints(endpoints("x:80", fmt.Sprint("new", i)))
			s.Publish("bad", uint64(i+2), told([]string{"x"}, cluster("c1", fmt.Sprint(i), "x:80")))
			same(t, "the good one hears", good.quiet(), []string{"EDS +x:80"})
			same(t, "at once", time.Since(begun), 0)
		}
		if queued := s.queued("bad"); queued > len(envoy.Types) {
			t.Errorf("%d responses wait for the bad one", queued)
		}
		waittest.Advance(sendPatience)
		same(t, "the bad one's end", status.Code(bad.end()), codes.Aborted)
		same(t, "the good one goes on", good.open(), true)
	})
}

// queued is how many responses wait for a proxy.
func (s *Server) queued(proxy string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.proxies[proxy].stream.out)
}

func TestNonReadingClientCanBeForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("bad", 1, told(nil, listener("l1", "1")))
		bad := dialWindow(t, s, "bad", 0)
		bad.begin()
		synctest.Wait()
		s.Forget("bad")
		same(t, "its end", status.Code(bad.end()), codes.Aborted)
	})
}

// A client that answers without reading cannot make us keep more than a few responses.
func TestAnsweringUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("bad", 1, told(nil, listener("l1", "1")))
		bad := dialWindow(t, s, "bad", 0)
		bad.begin()
		for i := range 10 {
			s.Publish("bad", uint64(i+2), told(nil, listener("l1", strings.Repeat("x", i))))
			for _, typ := range []string{envoy.ListenerType, envoy.ClusterType} {
				for n := range 3 {
					bad.send(&discoveryv3.DeltaDiscoveryRequest{
						TypeUrl:       typ,
						ResponseNonce: strconv.FormatUint(uint64(i+n), 36),
					})
				}
			}
			synctest.Wait()
		}
		if queued := s.queued("bad"); queued > len(envoy.Types) {
			t.Errorf("%d responses are kept", queued)
		}
		waittest.Advance(sendPatience)
		same(t, "its end", status.Code(bad.end()), codes.Aborted)
	})
}

// A flood of requests is read at the rate that is meant, and no faster.
func TestFloodIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("bad", 1, told(nil, listener("l1", "1")))
		s.Publish("good", 1, told(nil, listener("l1", "1")))
		bad, good := dial(t, s, "bad"), dial(t, s, "good")
		good.begin()
		good.quiet()
		read := 0
		go func() {
			for {
				select {
				case bad.pipe.requests <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ListenerType}:
					read++
				case <-bad.pipe.ctx.Done():
					return
				}
			}
		}()
		waittest.Advance(10 * time.Second)
		if most := requestBurst + 10*requestRate + 200; read > most || read < requestBurst {
			t.Errorf("%d requests were read in 10 s, at most %d should be", read, most)
		}
		s.Publish("good", 2, told(nil, listener("l1", "22")))
		same(t, "the good one hears", good.quiet(), []string{"LDS +l1"})
		bad.hangUp()
	})
}

// Refusing everything, and asking anew each time, gets the same answers at the rate that is meant.
func TestRefusalLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		c := dial(t, s, "a")
		c.want(envoy.ListenerType, "l1")
		begun, rounds := time.Now(), 0
		for ; rounds < 3*requestBurst; rounds++ {
			r := c.next()
			if r == nil {
				waittest.Advance(time.Second)
				r = c.next()
			}
			c.send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl: envoy.ListenerType, ResponseNonce: r.Nonce,
				ErrorDetail:            &rpcstatus.Status{Message: strings.Repeat("é", 1<<16)},
				ResourceNamesSubscribe: []string{"l1"},
			})
			c.send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl:                envoy.ListenerType,
				ResourceNamesSubscribe: []string{"l1"},
			})
		}
		if took := time.Since(begun); took < 10*time.Second {
			t.Errorf("%d rounds took %s", rounds, took)
		}
		if nack := s.Status()[0].Types[0].Nack; len(nack) > maxReason+8 || nack == "" {
			t.Errorf("%d bytes of reason are kept", len(nack))
		}
	})
}

// A proxy that opens stream after stream is held back.
func TestReconnectLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.Publish("a", 1, told(nil, listener("l1", "1")))
		begun := time.Now()
		for range 120 {
			c := dial(t, s, "a")
			c.begin()
			for c.next() == nil {
				waittest.Advance(10 * time.Millisecond)
			}
			c.hangUp()
			synctest.Wait()
		}
		if took := time.Since(begun); took < 50*time.Second {
			t.Errorf("120 streams were opened in %s", took)
		}
	})
}
