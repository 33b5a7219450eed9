//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
)

// binaries is a folder with what `make build` builds.
var binaries string

func TestMain(m *testing.M) {
	cgrouptest.Serve()
	rollingProgram()
	sandboxedProgram()
	idlingProgram()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "isthmus-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		// A copy, so that whoever builds meanwhile does not change what these tests run.
		build := exec.Command("sh", "-ec", "make --silent -C ../.. build; cp ../../bin/* \"$0\"", dir)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if build.Run() != nil {
			return 1
		}
		binaries = dir
		return m.Run()
	}())
}

// demo is the command line of a demo with names of its own.
func demo(t *testing.T, ctx context.Context, prefix string, args ...string) *exec.Cmd {
	t.Helper()
	all := append([]string{"demo", "--prefix", prefix, "--run-dir", "/run/isthmus/" + prefix}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "isthmus"), all...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// TestTour is the main job: every step of the tour holds, and nothing is left behind.
func TestTour(t *testing.T) {
	const prefix = "isthmus-t-tour"
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	args := []string{"--tour"}
	if dir := os.Getenv("ISTHMUS_TEST_LOGS"); dir != "" { // a debugging aid of this test, not of the product
		args = append(args, "--keep-logs", dir)
	}
	out, err := demo(t, ctx, prefix, args...).CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if held := regexp.MustCompile(`(?m)^ *\d+ √ `).FindAll(out, -1); len(held) != 17 {
		t.Errorf("%d steps held, want 16", len(held))
	}
	nothingLeft(t, prefix)
}

// TestInterruptedWhileItRises ends the demo with Ctrl-C before it is up.
func TestInterruptedWhileItRises(t *testing.T) {
	const prefix = "isthmus-t-ctrlc"
	cmd := demo(t, t.Context(), prefix)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, "starting two control planes")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	end(t, cmd, 20*time.Second)
	nothingLeft(t, prefix)
}

// TestCrashedDemoIsCleaned kills a demo without a word; its leftovers are named and removed, and a second demo of the
// same names is refused while the first lives.
func TestCrashedDemoIsCleaned(t *testing.T) {
	const prefix = "isthmus-t-crashed"
	cmd := demo(t, t.Context(), prefix)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, "both meshes are up")
	second, err := demo(t, t.Context(), prefix).CombinedOutput()
	if err == nil || !bytes.Contains(second, []byte("another demo is running")) {
		t.Errorf("a second demo: %v\n%s", err, second)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	end(t, cmd, 10*time.Second)
	text, err := demo(t, t.Context(), prefix, "clean").CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("removed network namespace "+prefix+"-cards-host")) {
		t.Errorf("clean: %v\n%s", err, text)
	}
	nothingLeft(t, prefix)
}

// waitFor reads lines until one contains text, and goes on reading so that the writer never waits.
func waitFor(t *testing.T, r io.Reader, text string) {
	t.Helper()
	seen := make(chan bool, 1)
	go func() {
		var once bool
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if !once && strings.Contains(lines.Text(), text) {
				once = true
				seen <- true
			}
		}
		if !once {
			seen <- false
		}
	}()
	select {
	case ok := <-seen:
		if !ok {
			t.Fatalf("it ended without saying %q", text)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it did not say %q within a minute", text)
	}
}

func end(t *testing.T, cmd *exec.Cmd, limit time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(limit):
		cmd.Process.Signal(syscall.SIGKILL)
		t.Errorf("it did not end within %s", limit)
	}
}

// nothingLeft looks for namespaces, folders and processes that bear the prefix.
func nothingLeft(t *testing.T, prefix string) {
	t.Helper()
	for _, pattern := range []string{"/run/netns/" + prefix + "-*", "/run/isthmus/" + prefix + "*"} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte("/run/isthmus/"+prefix)) {
			t.Errorf("still running: %s", bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
}
