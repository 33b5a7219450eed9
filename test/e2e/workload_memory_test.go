//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
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
			for _, ns := range []string{"bob", "web"} { // it is Envoy's memory that is to be filled, and not the kernel's
				need(t, lab.Inside(netnsOf(ns), func() error {
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
			time.Sleep(2 * time.Second)
			steady.stop(t)
			if most := connections * 500 << 10; grown > most {
				t.Errorf("Envoy has grown by %d MiB, more than %d", grown>>20, most>>20)
			}
		})
	}
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
