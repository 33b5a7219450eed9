//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// TestWorkloadsOnOneNode: callers and servers of one Envoy meet the same refusals and the same answers as those of two,
// whether calls are handed over inside it or go by the network.
func TestWorkloadsOnOneNode(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"InProcess", "Network"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			mesh := strings.Replace(shopMesh, "certificateTTL: 10s", "certificateTTL: 10s, sameNode: "+way, 1)
			all := slices.Concat(callers, servers)
			last := len(all) - 1 // pool-2, so that a destination is served here and elsewhere
			s := openShop(t, mesh, map[string][]member{"front": all[:last], "back": all[last:]})
			steady := s.startLoad(t, "alice", "steady", 40)
			began := time.Now()
			t.Run("the way", func(t *testing.T) { s.theWay(t, way) })
			t.Run("raw requests", s.rawRequests)
			t.Run("policies", s.policies)
			t.Run("server speaks first", s.serverFirst)
			t.Run("modes", s.modes)
			t.Run("strict", s.strict)
			t.Run("readiness", s.readiness)
			t.Run("records", s.records)
			t.Run("abandoned", s.abandoned)
			t.Run("short certificates", func(t *testing.T) { s.shortCertificates(t, steady, began) })
			t.Run("switched", s.switched)
			t.Run("Envoy killed", s.envoyKilled)
			t.Run("no plaintext on the wire", s.noPlaintext)
		})
	}
}

// theWay: what is handed over is not seen on the wire.
func (s *shop) theWay(t *testing.T, way string) {
	s.apply(t, "web", allow(`[{}]`))
	waittest.Quiet(200 * time.Millisecond) // the ends of other connections
	before := s.wire.between.Load()
	for range 20 {
		need(t, s.expect(200, s.get("bob", "web", "/")))
	}
	waittest.Quiet(200 * time.Millisecond)
	n := s.wire.between.Load() - before
	// there and back at least, on a connection that is kept
	if way == "InProcess" && n > 0 || way == "Network" && n < 40 {
		t.Errorf("%s: 20 calls were %d frames between workloads", way, n)
	}
}

// records: a refusal is written down with who called, from where, and what decided.
func (s *shop) records(t *testing.T) {
	s.apply(t, "web", allow(`[{from: [{source: {principals: ["`+id("default", "alice")+`"]}}]}]`)+
		deny(`[{to: [{operation: {paths: [/recorded]}}]}]`))
	within(t, 3*time.Second, "the refusal", func() error { return s.expect(403, s.get("alice", "web", "/recorded")) })
	within(t, 5*time.Second, "the record", func() error {
		text, err := s.accessLogs("front")
		if err != nil {
			return err
		}
		for _, l := range strings.Split(text, "\n") {
			var e map[string]any
			if json.Unmarshal([]byte(l), &e) != nil || e["path"] != "/recorded" {
				continue
			}
			for field, want := range map[string]any{
				"log": "inbound", "verdict": "denied", "caller": "spiffe://" + id("default", "alice"),
				"destination": "default/web",
				"remote":      "10.93.0.11", "reason": "policy default/deny#0 denies it", "method": "GET",
				"authority": "web", "code": 403.0,
			} {
				if e[field] != want {
					t.Errorf("%s is recorded as %v, want %v", field, e[field], want)
				}
			}
			return nil
		}
		return errors.New("there is none")
	})
}

// abandoned: callers that leave in the middle are no refusals.
func (s *shop) abandoned(t *testing.T) {
	s.apply(t, "web", allow(`[{}]`))
	before := s.refusedHandshakes(t)
	for range 50 {
		c, err := s.open("bob", "web")
		need(t, err)
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nhost: web\r\n\r\nGET / HTTP/1.1\r\nhost: web\r\n\r\n")
		need(t, err)
		need(t, c.Conn.(*net.TCPConn).SetLinger(0))
		c.Close()
	}
	waittest.Quiet(1500 * time.Millisecond) // Envoy sends its records once a second
	if n := s.refusedHandshakes(t) - before; n > 0 {
		t.Errorf("%d refused handshakes are recorded", n)
	}
}

// accessLogs is what a node wrote about refusals at all of its workloads.
func (s *shop) accessLogs(node string) (string, error) {
	files, err := filepath.Glob(s.path(node, "run", "access*.log"))
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

func (s *shop) refusedHandshakes(t *testing.T) int {
	t.Helper()
	text, err := s.accessLogs("front")
	need(t, err)
	return strings.Count(text, `"verdict":"handshake"`)
}

// switched: the way of calls changes, to and fro. Calls go on; what was connected is drained.
func (s *shop) switched(t *testing.T) {
	mesh, err := os.ReadFile(s.path("config", "mesh.yaml"))
	need(t, err)
	defer s.write(t, "mesh.yaml", string(mesh))
	s.apply(t, "web", allow(`[{}]`))
	other := map[string]string{"InProcess": "Network", "Network": "InProcess"}
	_, way, _ := strings.Cut(string(mesh), "sameNode: ")
	way, _, _ = strings.Cut(way, "}")
	for range 2 {
		raw, err := s.open("bob", "web:7000")
		need(t, err)
		if text, err := hear(raw, 2*time.Second); text != s.app("web:7000").banner {
			t.Fatalf("bob hears %q, %v", text, err)
		}
		s.write(t, "mesh.yaml", strings.Replace(string(mesh), "sameNode: "+way, "sameNode: "+other[way], 1))
		mesh, way = []byte(strings.Replace(string(mesh), "sameNode: "+way, "sameNode: "+other[way], 1)), other[way]
		waittest.Pace(time.Second) // until Envoy has the listener, a call to it fails
		began := time.Now()
		for time.Since(began) < 2*time.Second {
			need(t, s.expect(200, s.get("bob", "web", "/")))
		}
		s.nothingRefused(t)
		need(t, closed(raw, 3*time.Second))
		raw.Close()
		s.theWay(t, way)
	}
}
