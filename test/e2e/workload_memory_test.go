//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestNeighboursOfASlowReader: a workload that says very much on very many connections, and hears nothing of the
// answers, fills no more of its Envoy's memory than its share: calls of its neighbours go on.
func TestNeighboursOfASlowReader(t *testing.T) {
	for _, way := range []string{"InProcess", "Network"} {
		t.Run(way, func(t *testing.T) {
			mesh := strings.Replace(shopMesh, "certificateTTL: 10s", "sameNode: "+way, 1)
			s := openShop(t, mesh, map[string][]member{"front": slices.Concat(callers, servers)})
			s.apply(t, "web", allow(`[{from: [{source: {principals: ["`+id("default", "bob")+`"]}}]}]`))
			within(t, 5*time.Second, "bob is heard", func() error {
				c, err := s.open("bob", "web:7000")
				if err == nil {
					_, err = hear(c, time.Second)
					c.Close()
				}
				return err
			})
			before := s.envoyMemory(t, "front")
			// it is Envoy's memory that is to be filled, and not the kernel's
			for _, ns := range []string{"bob", "web"} {
				need(t, lab.Inside(s.netns(ns), func() error {
					return errors.Join(os.WriteFile("/proc/sys/net/ipv4/tcp_rmem", []byte("4096 16384 32768"), 0),
						os.WriteFile("/proc/sys/net/ipv4/tcp_wmem", []byte("4096 16384 32768"), 0))
				}))
			}
			const connections = 1000
			address, err := s.to("bob", "web:7000")
			need(t, err)
			var wg sync.WaitGroup
			var held sync.Mutex
			var all []net.Conn
			defer func() {
				for _, c := range all {
					c.Close()
				}
			}()
			some := make(chan struct{}, 50)
			for range connections {
				some <- struct{}{}
				c, err := s.dial("bob", address)
				need(t, err)
				held.Lock()
				all = append(all, c)
				held.Unlock()
				wg.Go(func() {
					defer func() { <-some }()
					text := make([]byte, 64<<10)
					for range 512 {
						c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
						if _, err := c.Write(text); err != nil {
							return
						}
					}
				})
			}
			wg.Wait()
			grown := s.envoyMemory(t, "front") - before
			t.Logf("%d MiB for %d connections", grown>>20, connections)
			steady := s.startLoad(t, "alice", "steady", 40)
			waittest.Quiet(2 * time.Second)
			steady.stop(t)
			if most := connections * 500 << 10; grown > most {
				t.Errorf("Envoy has grown by %d MiB, more than %d", grown>>20, most>>20)
			}
		})
	}
}

// TestNeighboursOfManyStreams: a workload that begins very many requests on few connections, and ends none, fills the
// memory of its Envoy with what a retry of them would need. They are reset until there is room, and then neighbours are
// served.
func TestNeighboursOfManyStreams(t *testing.T) {
	for _, c := range []struct {
		name          string
		streams, said int // said is in bytes of each body; together they are more than Envoy may have
	}{
		{"large bodies", 1500, 250_000},
		{"small bodies", 5000, 45_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openShop(t, strings.Replace(shopMesh, "certificateTTL: 10s", "sameNode: Network", 1),
				map[string][]member{"front": slices.Concat(callers, servers)}, func(s *shop) { s.heap = 256 })
			s.apply(t, "web", allow(`[{from: [{source: {principals: ["`+id("default", "bob")+`"]}}]}]`))
			within(t, 5*time.Second, "bob is heard", func() error { return s.expect(200, s.get("bob", "web", "/")) })
			s.beginMany(t, c.streams, c.said)
			t.Logf("Envoy has %d MiB", s.envoyMemory(t, "front")>>20)
			within(t, 30*time.Second, "a neighbour is served again and again", func() error {
				for range 50 {
					if err := s.expect(200, s.get("alice", "steady", "/")); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// beginMany has bob send as much of the body of each of many requests to web, 500 on a connection, and no more before
// the test ends.
func (s *shop) beginMany(t *testing.T, streams, said int) {
	address, err := s.to("bob", "web")
	need(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var begun, all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	for range streams / 500 {
		tr := &http.Transport{
			Protocols:   new(http.Protocols),
			DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial("bob", address) },
		}
		tr.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(tr.CloseIdleConnections)
		for range 500 {
			begun.Add(1)
			all.Go(func() {
				done := sync.OnceFunc(begun.Done)
				defer done()
				body := io.MultiReader(bytes.NewReader(make([]byte, said)), waiting{ctx, done})
				req, err := http.NewRequestWithContext(ctx, "POST", "http://web/", body)
				if err != nil {
					return
				}
				req.ContentLength = int64(2 * said)
				if resp, err := tr.RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			})
		}
	}
	begun.Wait()
}

// waiting is the rest of a body, which does not come before a context ends; that it is waited for is told.
type waiting struct {
	ctx  context.Context
	told func()
}

func (w waiting) Read([]byte) (int, error) {
	w.told()
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

// envoyMemory is what a node's Envoy has in memory, in bytes.
func (s *shop) envoyMemory(t *testing.T, node string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.envoyPID(t, node)))
	need(t, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	need(t, err)
	return kib << 10
}
