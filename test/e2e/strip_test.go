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
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/samples/probe"
)

const paymentsURL = "http://payments.default/v1/charges/headers"

// strip is the running demo: two meshes, peered, payments of cards imported by retail.
type strip struct {
	t       *testing.T
	prefix  string
	dir     string
	control map[string]*exec.Cmd // control planes that the test started, by mesh
}

// raise brings a demo up with names of its own. When the test ends it goes, and leaves nothing behind.
func raise(t *testing.T, prefix string) *strip {
	t.Helper()
	s := &strip{t: t, prefix: prefix, dir: "/run/isthmus/" + prefix, control: map[string]*exec.Cmd{}}
	args := []string{}
	if dir := os.Getenv("ISTHMUS_TEST_LOGS"); dir != "" { // a debugging aid of these tests, not of the product
		args = append(args, "--keep-logs", dir)
	}
	cmd := demo(t, context.WithoutCancel(t.Context()), prefix, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	t.Cleanup(func() {
		for _, c := range s.control {
			_ = c.Process.Kill() // it may have ended
			_ = c.Wait()
		}
		_ = cmd.Process.Signal(os.Interrupt) // likewise
		end(t, cmd, 30*time.Second)
		nothingLeft(t, prefix)
	})
	waitFor(t, out, "Both meshes are up. In another terminal")
	return s
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
	err = s.read(&st, "ca", "status", "-o", "json", "--socket", s.socket(mesh))
	return st, err
}

func (s *strip) status(mesh string) adminapi.CAStatusResponse {
	s.t.Helper()
	st, err := s.ask(mesh)
	need(s.t, err)
	return st
}

// read has a command answer in JSON.
func (s *strip) read(into any, args ...string) error {
	out, err := s.isthmus(args...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, into)
}

func query[T any](t *testing.T, s *strip, args ...string) (v T) {
	t.Helper()
	need(t, s.read(&v, args...))
	return v
}

// shorten gives the certificates of a mesh another life.
func (s *strip) shorten(mesh, life string) {
	s.t.Helper()
	path := filepath.Join(s.dir, mesh, "config", "mesh.yaml")
	b, err := os.ReadFile(path)
	need(s.t, err)
	short := regexp.MustCompile(`certificateTTL: \S+`).ReplaceAll(b, []byte("certificateTTL: "+life))
	if bytes.Equal(b, short) {
		s.t.Fatalf("%s asks for no certificateTTL other than %s", path, life)
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
		old := controlOf(s.t, settings)
		need(s.t, old.Kill())
		s.unlocked(filepath.Join(s.dir, mesh, "state.db.lock"))
	}
	cmd := exec.Command("nsenter", "--net=/run/netns/"+s.prefix+"-"+mesh+"-host", filepath.Join(binaries, "isthmus"),
		"control", "--config", settings)
	log, err := os.Create(filepath.Join(s.dir, "logs", mesh+"-control-again.log"))
	need(s.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	need(s.t, cmd.Start())
	s.control[mesh] = cmd
}

// unlocked waits until nobody holds a lock: a process that was killed ends thread by thread.
func (s *strip) unlocked(path string) {
	s.t.Helper()
	f, err := os.Open(path)
	need(s.t, err)
	defer f.Close()
	within(s.t, waittest.Patience, path+" is given back", func() error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // closing gives it back
	})
}

// flow is load that goes on.
type flow struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// begin sends requests as the storefront until finish.
func (s *strip) begin(l probe.Load) *flow { return s.probe("storefront", probe.Request{Load: &l}) }

// probe tries something as a workload.
func (s *strip) probe(workload string, r probe.Request) *flow {
	s.t.Helper()
	req, err := json.Marshal(r)
	need(s.t, err)
	f := &flow{}
	f.cmd = exec.Command(filepath.Join(binaries, "isthmus"), "demo", "--prefix", s.prefix, "--run-dir", s.dir, "exec",
		workload, "--",
		filepath.Join(binaries, "isthmus-samples"), "probe")
	f.cmd.Stderr = os.Stderr
	f.in, err = f.cmd.StdinPipe()
	need(s.t, err)
	out, err := f.cmd.StdoutPipe()
	need(s.t, err)
	f.out = json.NewDecoder(out)
	need(s.t, f.cmd.Start())
	_, err = f.in.Write(append(req, '\n'))
	need(s.t, err)
	return f
}

// get makes one request as a workload.
func (s *strip) get(workload, url string, timeout time.Duration) probe.Result {
	return s.probe(workload, probe.Request{HTTP: &probe.HTTP{Method: "GET", URL: url, Timeout: timeout}}).finish(s.t)
}

// served says why payments does not answer the storefront.
func (s *strip) served() error {
	if r := s.get("storefront", paymentsURL, 5*time.Second); r.Status != 200 ||
		r.Headers["served-by"] != "payments@cards" {
		return fmt.Errorf("%d %s%s", r.Status, r.Error, r.Body)
	}
	return nil
}

// next waits for a result.
func (f *flow) next(t *testing.T) (r probe.Result) {
	t.Helper()
	need(t, f.out.Decode(&r))
	return r
}

// finish ends the flow; its last result is the sum.
func (f *flow) finish(t *testing.T) probe.Result {
	t.Helper()
	need(t, f.in.Close())
	r := f.next(t)
	need(t, f.cmd.Wait())
	return r
}

// controlOf is the process that runs a control plane with these settings.
func controlOf(t *testing.T, settings string) *os.Process {
	return process(t, "\x00control\x00--config\x00"+settings+"\x00")
}

// gatewayOf is the agent of a gateway with these settings.
func gatewayOf(t *testing.T, settings string) *os.Process {
	return process(t, "\x00gateway\x00--config\x00"+settings+"\x00")
}

// envoyOf is the Envoy that was started with this bootstrap.
func envoyOf(t *testing.T, bootstrap string) *os.Process {
	return process(t, "\x00--config-path\x00"+bootstrap+"\x00")
}

// process is one whose command line holds a text; its arguments are separated by zeros.
func process(t *testing.T, text string) *os.Process {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	need(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			var pid int
			_, err := fmt.Sscanf(path, "/proc/%d/", &pid)
			need(t, err)
			p, err := os.FindProcess(pid)
			need(t, err)
			return p
		}
	}
	t.Fatalf("no process runs with %q", text)
	return nil
}
