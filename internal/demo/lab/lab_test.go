package lab

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// small is a plan of two namespaces on one bridge and one on another, without a route between the two.
func small(prefix string) Network {
	net := netip.MustParsePrefix
	return Network{
		Bridges: []Bridge{
			{Namespace: prefix + "-one", Address: net("10.99.1.1/24")},
			{Namespace: prefix + "-two", Address: net("10.99.2.1/24")},
		},
		Attachments: []Attachment{
			{
				Namespace: prefix + "-a", Device: "eth0", Address: net("10.99.1.11/24"), Bridge: prefix + "-one",
				Port: "v-a", Via: netip.MustParseAddr("10.99.1.1"),
			},
			{
				Namespace: prefix + "-b", Device: "eth0", Address: net("10.99.1.12/24"), Bridge: prefix + "-one",
				Port: "v-b",
			},
			{
				Namespace: prefix + "-c", Device: "eth0", Address: net("10.99.2.11/24"), Bridge: prefix + "-two",
				Port: "v-c",
			},
		},
	}
}

func config(t *testing.T, prefix string) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	return Config{Prefix: prefix, Dir: filepath.Join(t.TempDir(), "lab"), Network: small(prefix)}
}

func open(t *testing.T, cfg Config) *Lab {
	t.Helper()
	l, removed, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	for _, r := range removed {
		t.Log("left by an earlier run:", r)
	}
	return l
}

// run gives the combined output of a shell line inside a namespace.
func run(t *testing.T, l *Lab, namespace, resolv, line string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := l.Run(Command{
		Name: "run", Namespace: namespace, Resolv: resolv, Path: "/bin/sh", Args: []string{"-c", line + " 2>&1"},
		Stdout: &out,
	})
	return strings.TrimSpace(out.String()), err
}

func TestTrafficStaysInItsSubnet(t *testing.T) {
	const prefix = "isthmus-t-net"
	l := open(t, config(t, prefix))
	server := "python3 -u -m http.server 8080 --bind 10.99.1.12 --directory /proc/self/task"
	if _, err := l.Start(Command{
		Name: "b", Namespace: prefix + "-b", Path: "/bin/sh", Args: []string{"-c", "exec " + server},
	}); err != nil {
		t.Fatal(err)
	}
	get := "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do curl -s -o /dev/null -m 2 -w '%{http_code} ' http://10.99.1.12:8080/ && exit 0; sleep 0.1; done; exit 1"
	if out, err := run(t, l, prefix+"-a", "", get); err != nil || !strings.HasSuffix(out, "200") {
		t.Errorf("a to b in one subnet: %q, %v", out, err)
	}
	if out, err := run(t, l, prefix+"-c", "", "curl -sS -m 2 http://10.99.1.12:8080/"); err == nil {
		t.Errorf("c reached b in another subnet: %q", out)
	}
	if out, err := run(t, l, prefix+"-a", "", "curl -sS -m 1 http://10.99.2.11:8080/"); err == nil {
		t.Errorf("a reached another subnet through its default route: %q", out)
	}
}

func TestResolvConfIsTheCommandsOwn(t *testing.T) {
	const prefix = "isthmus-t-dns"
	l := open(t, config(t, prefix))
	before, err := os.ReadFile(resolvConf)
	if err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(l.Dir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, l, prefix+"-a", resolv, "cat /etc/resolv.conf"); err != nil || out != "nameserver 127.0.0.1" {
		t.Errorf("inside: %q, %v", out, err)
	}
	after, err := os.ReadFile(resolvConf)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the host's file changed to %q, %v", after, err)
	}
}

func TestASecondLabOfTheSameNamesIsRefused(t *testing.T) {
	cfg := config(t, "isthmus-t-two")
	open(t, cfg)
	_, _, err := Open(cfg)
	var busy BusyError
	if !errors.As(err, &busy) || busy.PID == "" {
		t.Fatalf("got %v", err)
	}
	if len(existing(cfg.Network.Namespaces())) != 5 {
		t.Error("the refused lab took namespaces of the live one away")
	}
}

func TestAFolderOfSomebodyElseIsLeftAlone(t *testing.T) {
	cfg := config(t, "isthmus-t-dir")
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(cfg.Dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "choose another run directory") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	const prefix = "isthmus-t-crash"
	cfg := config(t, prefix)
	l := open(t, cfg)
	// A process in a namespace that outlives its maker, as Envoy would outlive a killed agent.
	out, err := run(t, l, prefix+"-a", "", "setsid sleep 4711 >/dev/null </dev/null & echo $!")
	if err != nil {
		t.Fatal(out, err)
	}
	other := exec.Command("sleep", "4712") // not ours to end
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	// The crash: the lock goes, everything else stays.
	if err := unlockFile(l.lock); err != nil {
		t.Fatal(err)
	}
	removed, err := Clean(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(removed, "\n")
	for _, want := range []string{
		"sleep 4711)", "network namespace isthmus-t-crash-one", // setsid may still be before it
		"network namespace isthmus-t-crash-c",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not among what was removed:\n%s", want, text)
		}
	}
	if left := existing(cfg.Network.Namespaces()); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", cfg.Dir, err)
	}
	if _, err := identify(other.Process.Pid); err != nil {
		t.Errorf("a stranger's process was ended: %v", err)
	}
	l.lock, err = lockFile(filepath.Join(lockDir, prefix+".lock")) // for the cleanup
	if err != nil {
		t.Fatal(err)
	}
}

func TestAReusedProcessIDIsLeftAlone(t *testing.T) {
	cmd := exec.Command("sleep", "4713")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	id, err := identify(cmd.Process.Pid)
	for err == nil && !strings.HasPrefix(id.Command, "sleep") { // not yet executed
		id, err = identify(cmd.Process.Pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]process{
		"another start":   {PID: id.PID, Start: id.Start + 1, Boot: id.Boot, Command: id.Command},
		"another command": {PID: id.PID, Start: id.Start, Boot: id.Boot, Command: "envoy"},
		"another boot":    {PID: id.PID, Start: id.Start, Boot: "x", Command: id.Command},
	} {
		if wrong.kill() {
			t.Errorf("%s: killed", name)
		}
	}
	if !id.kill() {
		t.Error("the recorded process was not killed")
	}
}

func TestStopAndKill(t *testing.T) {
	const prefix = "isthmus-t-stop"
	l := open(t, config(t, prefix))
	stubborn, err := l.Start(Command{
		Name: "stubborn", Namespace: prefix + "-a", Path: "/bin/sh",
		Args: []string{"-c", "trap '' TERM; echo said >&2; while :; do sleep 0.05; done"},
	})
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "it ignores the signal", func() bool { return lastLine(l.LogFile("stubborn")) != "" })
	start := time.Now()
	stubborn.Stop(100 * time.Millisecond)
	if d := time.Since(start); d < 100*time.Millisecond || d > 3*time.Second {
		t.Errorf("stopped after %v", d)
	}
	if err := stubborn.Wait(); err == nil || err.Error() != "signal: killed: said" {
		t.Errorf("got %v", err)
	}
}
