//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/waittest"
)

const probePrefix = "isthmus-t-probe"

// The tokens of cards, which speak raw TCP, offered to retail and used there.
const (
	exportTokens = `apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: tokens, namespace: default}
spec: {service: tokens, port: 7000, to: [{peer: retail}]}
`
	importTokens = `apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: tokens, namespace: default}
spec: {port: 7000, protocol: TCP, from: [{peer: cards}], callers: [storefront]}
`
)

// TestProbe probes cards from retail through both real gateways: whole, and with one leg after the other broken.
func TestProbe(t *testing.T) {
	s := raise(t, probePrefix)
	s.drop("cards", "export-tokens.yaml", exportTokens)
	s.drop("retail", "import-tokens.yaml", importTokens)

	t.Run("whole", func(t *testing.T) {
		r := s.whole(t, "connect handshake connect handshake answer answer")
		for i, l := range r.Legs[1:] {
			if l.Took <= 0 || l.Took > r.Took {
				t.Errorf("leg %d took %s of %s: %+v", i+1, l.Took, r.Took, l)
			}
		}
		if own, theirs := r.Legs[5].Took, r.Legs[6].Took; theirs > own {
			t.Errorf("the peer's gateway waited %s of the %s that it took", theirs, own)
		}
		if whole := fmt.Sprint(r); strings.Contains(whole, "10.71.") || strings.Contains(whole, "svc.cluster") {
			t.Errorf("it tells of the inside of cards: %s", whole)
		}
	})
	t.Run("imports", func(t *testing.T) {
		// What reaches a workload of cards goes through the Envoy of its node, which stands still.
		still := envoyOf(t, s.dir+"/cards/node/run/envoy.json")
		need(t, still.Signal(syscall.SIGSTOP))
		defer still.Signal(syscall.SIGCONT)
		if r := s.whole(t, "connect handshake connect handshake answer answer ready", "--import",
			"payments"); r.Asked != "payments.default.retail.fed.cards.example" {
			t.Errorf("asked for %s", r.Asked)
		}
		if r := s.whole(t, "connect handshake connect handshake answer answer ready", "--import",
			"tokens"); r.Asked != "probe.retail.fed.cards.example" {
			t.Errorf("of a raw service it asked for %s", r.Asked)
		}
	})
	t.Run("not ready", func(t *testing.T) {
		// of this demo alone, since no other test runs beside this one
		program := process(t, filepath.Join(binaries,
			"isthmus-samples")+"\x00payments\x00--listen\x00:8080\x00--served-by\x00payments@cards\x00")
		need(t, program.Signal(syscall.SIGSTOP))
		defer program.Signal(syscall.SIGCONT)
		s.broken(t, 7, "no endpoint that is ready", "--import", "payments")
		need(t, program.Signal(syscall.SIGCONT))
		s.whole(t, "connect handshake connect handshake answer answer ready", "--import", "payments")
	})
	t.Run("not exported", func(t *testing.T) {
		need(t, os.Rename(s.config("cards", "export-payments.yaml"), filepath.Join(s.dir, "aside.yaml")))
		s.broken(t, 4, "does not offer payments.default.retail.fed.cards.example", "--import", "payments")
		s.whole(t, "connect handshake connect handshake answer answer")
		need(t, os.Rename(filepath.Join(s.dir, "aside.yaml"), s.config("cards", "export-payments.yaml")))
		s.whole(t, "connect handshake connect handshake answer answer ready", "--import", "payments")
	})
	t.Run("suspended at the other side", func(t *testing.T) {
		s.command(t, "cards", "suspend", "retail")
		s.broken(t, 6, "there this mesh is suspended")
		s.command(t, "cards", "resume", "retail")
		s.whole(t, "connect handshake connect handshake answer answer")
	})
	t.Run("suspended here", func(t *testing.T) {
		s.command(t, "retail", "suspend", "cards")
		s.broken(t, 0, "suspended by command")
		s.command(t, "retail", "resume", "cards")
		s.whole(t, "connect handshake connect handshake answer answer")
	})
	t.Run("the peer's control plane hangs, and is killed", func(t *testing.T) {
		p := controlOf(t, filepath.Join(s.dir, "cards", "control.yaml"))
		need(t, p.Signal(syscall.SIGSTOP))
		s.broken(t, 6, "does not answer its gateway")
		need(t, p.Kill())
		s.broken(t, 6, "HTTP status 503")
	})
	t.Run("the peer's gateway is silent, and is killed", func(t *testing.T) {
		envoy := envoyOf(t, s.dir+"/cards/gateway/run/envoy.json")
		need(t, envoy.Signal(syscall.SIGSTOP))
		s.broken(t, 3, "within 2 s")
		agent := gatewayOf(t, s.dir+"/cards/gateway.yaml")
		need(t, agent.Kill())
		need(t, envoy.Kill())
		s.broken(t, 3, "nobody listens at 198.51.100.11:15443")
	})
	t.Run("the own gateway is killed", func(t *testing.T) {
		need(t, gatewayOf(t, s.dir+"/retail/gateway.yaml").Kill())
		need(t, envoyOf(t, s.dir+"/retail/gateway/run/envoy.json").Kill())
		s.broken(t, 1, "refused")
	})
}

func (s *strip) config(mesh, name string) string {
	return filepath.Join(s.dir, mesh, "config", name)
}

// drop puts a file into a mesh's configuration.
func (s *strip) drop(mesh, name, text string) {
	s.t.Helper()
	need(s.t, os.WriteFile(s.config(mesh, name)+".new~", []byte(text), 0o644))
	need(s.t, os.Rename(s.config(mesh, name)+".new~", s.config(mesh, name)))
}

func (s *strip) command(t *testing.T, mesh, verb, peer string) {
	t.Helper()
	args := []string{"peer", verb, peer, "--socket", s.socket(mesh)}
	if verb != "resume" {
		args = append(args, "--yes")
	}
	_, err := s.isthmus(args...)
	need(t, err)
}

// whole waits until every leg is well, and checks which legs there are after the first.
func (s *strip) whole(t *testing.T, steps string, args ...string) adminapi.PeerProbeResponse {
	t.Helper()
	r, _ := s.probeUntil(t, 0, func(r adminapi.PeerProbeResponse) error {
		var got []string
		for _, l := range r.Legs {
			if l.State != "ok" {
				return fmt.Errorf("%s of %s: %s", l.Step, l.To, l.Detail)
			}
			got = append(got, l.Step)
		}
		if strings.Join(got, " ") != "consent "+steps {
			return fmt.Errorf("legs %v", got)
		}
		return nil
	}, args...)
	return r
}

// broken waits until the named leg is the one that is broken, those before it are well and those behind it were not
// tried.
func (s *strip) broken(t *testing.T, leg int, detail string, args ...string) {
	t.Helper()
	r, text := s.probeUntil(t, 79, func(r adminapi.PeerProbeResponse) error {
		for i, l := range r.Legs {
			if want := map[bool]string{true: "ok", false: "untried"}[i < leg]; i != leg && l.State != want {
				return fmt.Errorf("leg %d: %+v", i, l)
			}
		}
		if l := r.Legs[leg]; l.State != "failed" || l.Remedy == "" || !strings.Contains(l.Detail, detail) {
			return fmt.Errorf("leg %d: %+v", leg, l)
		}
		return nil
	}, args...)
	t.Logf("%s\n    → %s%s", r.Legs[leg].Detail, r.Legs[leg].Remedy, text)
}

// probeUntil probes cards from retail, one time a second, until fn is content, and checks the exit code.
func (s *strip) probeUntil(
	t *testing.T, code int, fn func(adminapi.PeerProbeResponse) error, args ...string,
) (r adminapi.PeerProbeResponse, complaint string) {
	t.Helper()
	for began := time.Now(); ; waittest.Pace(1100 * time.Millisecond) {
		cmd := exec.Command(filepath.Join(binaries, "isthmus"),
			append([]string{"peer", "probe", "cards", "-o", "json", "--socket", s.socket("retail")}, args...)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		r = adminapi.PeerProbeResponse{}
		if bad := json.Unmarshal(out, &r); bad != nil {
			err = fmt.Errorf("%w: %v: %s", bad, err, &errs)
		} else if bad := fn(r); bad != nil {
			err = bad
		} else if cmd.ProcessState.ExitCode() != code {
			err = errors.New("exit code " + cmd.ProcessState.String())
		} else {
			return r, errs.String()
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal(err)
		}
	}
}
