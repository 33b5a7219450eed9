//go:build e2e

package e2e

import (
	"bytes"
	"context"
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
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s := &strip{t: t, dir: "/run/isthmus/" + probePrefix}
	cmd := demo(t, ctx, probePrefix)
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	defer func() {
		need(t, cmd.Process.Signal(os.Interrupt))
		end(t, cmd, 30*time.Second)
		nothingLeft(t, probePrefix)
	}()
	waitFor(t, out, "Both meshes are up. In another terminal")
	s.drop("cards", "export-tokens.yaml", exportTokens)
	s.drop("retail", "import-tokens.yaml", importTokens)

	t.Run("whole", func(t *testing.T) {
		r := s.probe(t, "connect handshake connect handshake answer answer")
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
		before := s.lines(t, "cards-payments") + s.lines(t, "cards-tokens")
		if r := s.probe(t, "connect handshake connect handshake answer answer ready", "--import", "payments"); r.Asked != "payments.default.retail.fed.cards.example" {
			t.Errorf("asked for %s", r.Asked)
		}
		if r := s.probe(t, "connect handshake connect handshake answer answer ready", "--import", "tokens"); r.Asked != "control.retail.fed.cards.example" {
			t.Errorf("of a raw service it asked for %s", r.Asked)
		}
		if after := s.lines(t, "cards-payments") + s.lines(t, "cards-tokens"); after != before {
			t.Errorf("the services heard of it: %d lines more", after-before)
		}
	})
	t.Run("not exported", func(t *testing.T) {
		need(t, os.Rename(s.config("cards", "export-payments.yaml"), filepath.Join(s.dir, "aside.yaml")))
		s.broken(t, 4, "does not offer payments.default.retail.fed.cards.example", "--import", "payments")
		s.probe(t, "connect handshake connect handshake answer answer")
		need(t, os.Rename(filepath.Join(s.dir, "aside.yaml"), s.config("cards", "export-payments.yaml")))
		s.probe(t, "connect handshake connect handshake answer answer ready", "--import", "payments")
	})
	t.Run("suspended at the other side", func(t *testing.T) {
		// An open invitation keeps the gateway listening: what retail asks for is then refused in the handshake.
		_, err := s.isthmus("peer", "invite", "third", "--out", filepath.Join(s.dir, "third"), "--socket", s.socket("cards"))
		need(t, err)
		s.deed(t, "cards", "suspend", "retail")
		s.broken(t, 4, "suspended, revoked or never accepted")
		s.deed(t, "cards", "resume", "retail")
		s.probe(t, "connect handshake connect handshake answer answer")
	})
	t.Run("suspended here", func(t *testing.T) {
		s.deed(t, "retail", "suspend", "cards")
		s.broken(t, 0, "suspended by command")
		s.deed(t, "retail", "resume", "cards")
		s.probe(t, "connect handshake connect handshake answer answer")
	})
	t.Run("the peer's control plane hangs, and is killed", func(t *testing.T) {
		p, err := os.FindProcess(controlOf(t, filepath.Join(s.dir, "cards", "control.yaml")))
		need(t, err)
		need(t, p.Signal(syscall.SIGSTOP))
		s.broken(t, 6, "HTTP status 504")
		need(t, p.Kill())
		s.broken(t, 6, "HTTP status 503")
	})
	t.Run("the peer's gateway is silent, and is killed", func(t *testing.T) {
		envoy := envoyOf(t, s.dir+"/cards/gateway/run/envoy.json")
		need(t, envoy.Signal(syscall.SIGSTOP))
		s.broken(t, 3, "within 2 s")
		agent := processOf(t, "\x00gateway\x00--config\x00"+s.dir+"/cards/gateway.yaml\x00")
		need(t, agent.Kill())
		need(t, envoy.Kill())
		s.broken(t, 3, "nobody listens at 198.51.100.11:15443")
	})
	t.Run("the own gateway is killed", func(t *testing.T) {
		need(t, processOf(t, "\x00gateway\x00--config\x00"+s.dir+"/retail/gateway.yaml\x00").Kill())
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

func (s *strip) deed(t *testing.T, mesh, verb, peer string) {
	t.Helper()
	args := []string{"peer", verb, peer, "--socket", s.socket(mesh)}
	if verb != "resume" {
		args = append(args, "--yes")
	}
	_, err := s.isthmus(args...)
	need(t, err)
}

// lines is how much a program of the demo has written to its log.
func (s *strip) lines(t *testing.T, program string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "logs", program+".log"))
	need(t, err)
	return bytes.Count(b, []byte("\n"))
}

// probe waits until every leg is well, and checks which legs there are after the first.
func (s *strip) probe(t *testing.T, steps string, args ...string) adminapi.PeerProbeResponse {
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

// broken waits until the named leg is the one that is broken, those before it are well and those behind it were not tried.
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
func (s *strip) probeUntil(t *testing.T, code int, fn func(adminapi.PeerProbeResponse) error, args ...string) (r adminapi.PeerProbeResponse, complaint string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(1100 * time.Millisecond) {
		cmd := exec.Command(filepath.Join(binaries, "isthmus"), append([]string{"peer", "probe", "cards", "-o", "json", "--socket", s.socket("retail")}, args...)...)
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

// processOf is the one process whose command line ends so.
func processOf(t *testing.T, suffix string) *os.Process { return process(t, suffix, bytes.HasSuffix) }

// envoyOf is the Envoy that was started with this bootstrap.
func envoyOf(t *testing.T, bootstrap string) *os.Process {
	return process(t, "\x00--config-path\x00"+bootstrap+"\x00", bytes.Contains)
}

func process(t *testing.T, text string, match func(b, part []byte) bool) *os.Process {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	need(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && match(b, []byte(text)) {
			var pid int
			_, err := fmt.Sscanf(path, "/proc/%d/", &pid)
			need(t, err)
			p, err := os.FindProcess(pid)
			need(t, err)
			return p
		}
	}
	t.Fatalf("no process with %q", text)
	return nil
}
