//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/samples/probe"
)

const rotPrefix = "isthmus-t-rot"

// strip is the running demo: two meshes, peered, payments of cards imported by retail.
type strip struct {
	t       *testing.T
	dir     string
	control map[string]*exec.Cmd // control planes that the test started, by mesh
}

// TestRootRotation replaces the roots of both meshes, one after the other, while the storefront of retail calls payments of
// cards through both gateways, certificates live for ten seconds, and the control plane that rotates is killed at two of
// its steps. Not one request fails; at the end nothing leads to an old root.
func TestRootRotation(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := &strip{t: t, dir: "/run/isthmus/" + rotPrefix, control: map[string]*exec.Cmd{}}
	args := []string{}
	if dir := os.Getenv("ISTHMUS_TEST_LOGS"); dir != "" { // a debugging aid of this test, not of the product
		args = append(args, "--keep-logs", dir)
	}
	cmd := demo(t, ctx, rotPrefix, args...)
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	defer func() {
		for _, c := range s.control {
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()
		}
		need(t, cmd.Process.Signal(os.Interrupt))
		end(t, cmd, 30*time.Second)
		nothingLeft(t, rotPrefix)
	}()
	waitFor(t, out, "Both meshes are up. In another terminal")
	for _, mesh := range []string{"cards", "retail"} {
		s.shorten(mesh)
	}
	time.Sleep(3 * time.Second) // the short certificates are there

	load := s.begin(probe.Load{HTTP: probe.HTTP{Method: "GET", URL: "http://payments.default/v1/charges/headers", Timeout: 5 * time.Second}, Workers: 6, Pause: 30 * time.Millisecond})
	t.Run("cards", func(t *testing.T) { s.rotate(t, "cards", "retail", nil) })
	t.Run("retail, killed twice", func(t *testing.T) { s.rotate(t, "retail", "cards", []string{"prepared", "activated"}) })
	r := load.finish(t)
	t.Logf("%d requests in %s, %d failed", r.Requests, r.Elapsed.Round(time.Second), r.Failures)
	if r.Failures > 0 || r.Requests < 1000 || r.ServedBy["payments@cards"] != r.Requests {
		t.Errorf("%d of %d requests failed, the first: %s; served by %v", r.Failures, r.Requests, r.FirstFailure, r.ServedBy)
	}
}

// rotate replaces one mesh's root to the end, and holds what is left against it.
func (s *strip) rotate(t *testing.T, mesh, peer string, kill []string) {
	begun := time.Now()
	before := s.status(mesh)
	if len(before.Roots) != 1 || before.Rotation != nil {
		t.Fatalf("before: %+v", before)
	}
	oldRoot := before.Roots[0].SHA256
	text, err := s.isthmus("ca", "rotate", "--yes", "--socket", s.socket(mesh))
	need(t, err)
	t.Logf("%s", text)

	step, waits := "", ""
	var newRoot string
	for late := time.Now().Add(90 * time.Second); step != "done"; time.Sleep(100 * time.Millisecond) {
		st, err := s.ask(mesh)
		if err != nil && s.control[mesh] != nil {
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
	if newRoot == oldRoot || len(after.Roots) != 1 || after.Roots[0].SHA256 != newRoot || len(after.Rotation.Passed) > 0 {
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
	var known []string
	for late := time.Now().Add(10 * time.Second); !slices.Equal(known, []string{newRoot}) && time.Now().Before(late); time.Sleep(100 * time.Millisecond) {
		list := query[adminapi.PeerListResponse](t, s, "peer", "list", "-o", "json", "--socket", s.socket(peer))
		known = list.Peers[0].Fingerprints
	}
	if !slices.Equal(known, []string{newRoot}) {
		t.Errorf("%s trusts %v for %s, want %s", peer, known, mesh, newRoot)
	}
	time.Sleep(3 * time.Second) // under load, with one root everywhere
}

func (s *strip) socket(mesh string) string { return filepath.Join(s.dir, mesh, "control.sock") }

func (s *strip) isthmus(args ...string) ([]byte, error) {
	var errs bytes.Buffer
	cmd := exec.Command(filepath.Join(binaries, "isthmus"), args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("isthmus %s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return out, err
}

func (s *strip) ask(mesh string) (st adminapi.CAStatusResponse, err error) {
	out, err := s.isthmus("ca", "status", "-o", "json", "--socket", s.socket(mesh))
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	return st, err
}

func (s *strip) status(mesh string) adminapi.CAStatusResponse {
	s.t.Helper()
	st, err := s.ask(mesh)
	need(s.t, err)
	return st
}

func query[T any](t *testing.T, s *strip, args ...string) (v T) {
	t.Helper()
	out, err := s.isthmus(args...)
	need(t, err)
	need(t, json.Unmarshal(out, &v))
	return v
}

// shorten lets the certificates of a mesh live for ten seconds.
func (s *strip) shorten(mesh string) {
	s.t.Helper()
	path := filepath.Join(s.dir, mesh, "config", "mesh.yaml")
	b, err := os.ReadFile(path)
	need(s.t, err)
	short := bytes.Replace(b, []byte("certificateTTL: 5m"), []byte("certificateTTL: 10s"), 1)
	if bytes.Equal(b, short) {
		s.t.Fatalf("%s asks for no certificateTTL of 5m", path)
	}
	need(s.t, os.WriteFile(path+".new~", short, 0o644))
	need(s.t, os.Rename(path+".new~", path))
}

// kill ends a mesh's control plane without a word and starts another in its place.
func (s *strip) kill(mesh string) {
	s.t.Helper()
	settings := filepath.Join(s.dir, mesh, "control.yaml")
	if old := s.control[mesh]; old != nil {
		need(s.t, old.Process.Kill())
		_ = old.Wait() // it was killed
	} else {
		p, err := os.FindProcess(controlOf(s.t, settings))
		need(s.t, err)
		need(s.t, p.Kill())
	}
	cmd := exec.Command("nsenter", "--net=/run/netns/"+rotPrefix+"-"+mesh+"-host", filepath.Join(binaries, "isthmus"), "control", "--config", settings)
	log, err := os.Create(filepath.Join(s.dir, "logs", mesh+"-control-again.log"))
	need(s.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	need(s.t, cmd.Start())
	s.control[mesh] = cmd
}

// controlOf is the process that runs a control plane with these settings.
func controlOf(t *testing.T, settings string) int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	need(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && bytes.HasSuffix(b, []byte("\x00control\x00--config\x00"+settings+"\x00")) {
			var pid int
			_, err := fmt.Sscanf(path, "/proc/%d/", &pid)
			need(t, err)
			return pid
		}
	}
	t.Fatalf("nobody runs a control plane with %s", settings)
	return 0
}

// flow is load that goes on.
type flow struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bytes.Buffer
}

// begin sends requests as the storefront until finish.
func (s *strip) begin(l probe.Load) *flow {
	s.t.Helper()
	req, err := json.Marshal(probe.Request{Load: &l})
	need(s.t, err)
	f := &flow{out: &bytes.Buffer{}}
	f.cmd = exec.Command(filepath.Join(binaries, "isthmus"), "demo", "--prefix", rotPrefix, "--run-dir", s.dir, "exec", "storefront", "--",
		filepath.Join(binaries, "isthmus-samples"), "probe")
	f.cmd.Stdout, f.cmd.Stderr = f.out, os.Stderr
	f.in, err = f.cmd.StdinPipe()
	need(s.t, err)
	need(s.t, f.cmd.Start())
	_, err = f.in.Write(append(req, '\n'))
	need(s.t, err)
	return f
}

func (f *flow) finish(t *testing.T) (r probe.Result) {
	t.Helper()
	need(t, f.in.Close())
	need(t, f.cmd.Wait())
	need(t, json.Unmarshal(f.out.Bytes(), &r))
	return r
}
