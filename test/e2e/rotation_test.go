//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/samples/probe"
)

// TestRootRotation replaces the roots of both meshes, one after the other, while the storefront of retail calls
// payments of cards through both gateways, certificates live for ten seconds, and the control plane that rotates is
// killed at two of its steps. Not one request fails; at the end nothing leads to an old root.
func TestRootRotation(t *testing.T) {
	t.Parallel()
	s := raise(t, "isthmus-t-rot")
	for _, mesh := range []string{"cards", "retail"} {
		s.shorten(mesh, "10s")
	}
	s.shortCertificates(t)

	load := s.begin(probe.Load{
		HTTP: probe.HTTP{Method: "GET", URL: paymentsURL, Timeout: 5 * time.Second}, Workers: 6,
		Pause: 30 * time.Millisecond,
	})
	t.Run("cards", func(t *testing.T) { s.rotate(t, "cards", "retail", nil) })
	t.Run("retail, killed twice", func(t *testing.T) {
		s.rotate(t, "retail", "cards",
			[]string{"prepared", "activated"})
	})
	r := load.finish(t)
	t.Logf("%d requests in %s, %d failed", r.Requests, r.Elapsed.Round(time.Second), r.Failures)
	if r.Failures > 0 || r.Requests < 1000 || r.ServedBy["payments@cards"] != r.Requests {
		t.Errorf("%d of %d requests failed, the first: %s; served by %v", r.Failures, r.Requests, r.FirstFailure(),
			r.ServedBy)
	}
	t.Run("cards, suspended meanwhile", func(t *testing.T) {
		s.command(t, "retail", "suspend", "cards")
		s.rotate(t, "cards", "retail", nil)
		s.command(t, "retail", "resume", "cards")
		s.whole(t, "connect handshake connect handshake answer answer ready", "--import", "payments")
	})
}

// shortCertificates waits until no workload's certificate that is in use lives longer than ten seconds.
func (s *strip) shortCertificates(t *testing.T) {
	t.Helper()
	for _, mesh := range []string{"cards", "retail"} {
		within(t, waittest.Patience, "short certificates in "+mesh, func() error {
			list := query[adminapi.CertListResponse](t, s, "cert", "list", "-o", "json", "--socket", s.socket(mesh))
			for _, c := range list.Certs {
				rest, ofNode := time.Until(c.NotAfter), strings.Contains(c.SPIFFEID, "/isthmus/node/")
				if rest > 10*time.Second && !ofNode {
					return fmt.Errorf("%s at %s lives for %s more", c.SPIFFEID, c.Node, rest)
				}
			}
			if len(list.Certs) == 0 {
				return errors.New("none is in use")
			}
			return nil
		})
	}
}

// rotate replaces one mesh's root to the end, and holds what is left against it.
func (s *strip) rotate(t *testing.T, mesh, peer string, kill []string) {
	begun := time.Now()
	before := s.status(mesh)
	if len(before.Roots) != 1 || before.Rotation != nil && before.Rotation.Step != "done" {
		t.Fatalf("before: %+v", before)
	}
	oldRoot := before.Roots[0].SHA256
	text, err := s.isthmus("ca", "rotate", "--yes", "--socket", s.socket(mesh))
	need(t, err)
	t.Logf("%s", text)

	step, waits := "", ""
	var newRoot string
	for late := time.Now().Add(90 * time.Second); step != "done"; waittest.Pace(100 * time.Millisecond) {
		st, err := s.ask(mesh)
		if err != nil && s.control[mesh] != nil && time.Now().Before(late) {
			continue // it has just been killed
		}
		need(t, err)
		r := st.Rotation
		newRoot = r.NewSHA256
		now := ""
		for _, w := range r.Waits {
			now += fmt.Sprintf("; %s %s %s", w.What, w.Name, w.Why)
		}
		if r.Step != step || now != waits {
			t.Logf("%5.1fs  %s%s %s", time.Since(begun).Seconds(), r.Step, now, r.Error)
			step, waits = r.Step, now
		}
		if i := slices.Index(kill, step); i >= 0 {
			kill = slices.Delete(kill, i, i+1)
			s.kill(mesh)
			t.Logf("%5.1fs  the control plane was killed, and started again", time.Since(begun).Seconds())
		}
		if time.Now().After(late) {
			t.Fatalf("stuck at %s: %+v", step, r)
		}
	}
	if len(kill) > 0 {
		t.Errorf("never seen: %v", kill)
	}
	after := s.status(mesh)
	if newRoot == oldRoot || len(after.Roots) != 1 || after.Roots[0].SHA256 != newRoot ||
		len(after.Rotation.Passed) > 0 {
		t.Errorf("after: %+v, the old root was %s", after, oldRoot)
	}
	certs := query[adminapi.CertListResponse](t, s, "cert", "list", "-o", "json", "--socket", s.socket(mesh))
	for _, c := range certs.Certs {
		if c.Root != newRoot {
			t.Errorf("%s at %s is under %s", c.SPIFFEID, c.Node, c.Root)
		}
	}
	if len(certs.Certs) < 4 {
		t.Errorf("only %d certificates are in use", len(certs.Certs))
	}
	within(t, 10*time.Second, peer+" trusts the new root alone", func() error {
		list := query[adminapi.PeerListResponse](t, s, "peer", "list", "-o", "json", "--socket", s.socket(peer))
		if known := list.Peers[0].Roots; !slices.Equal(known, []string{newRoot}) {
			return fmt.Errorf("it trusts %v, want %s", known, newRoot)
		}
		return nil
	})
	waittest.Quiet(3 * time.Second) // under load, with one root everywhere
}
