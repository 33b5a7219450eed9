//go:build e2e

package install

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// base is where the hosts' files are, in memory.
const base = "/run/isthmus-install-test"

// host is a machine as far as systemd, dpkg and the network go: it shares the kernel, and what is not changed, with
// this one.
type host struct {
	name string
	pid  string // of its systemd
	t    *testing.T
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a command of this machine.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func netnsOf(name string) string { return "isthmus-install-" + name }

// bootHosts makes two hosts with a wire between them, 10.1.0.1 and 10.1.0.2.
func bootHosts(t *testing.T, packages string) (alpha, beta *host) {
	t.Helper()
	for _, program := range []string{"systemctl", "dpkg", "ip", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs %s: `tools/preflight.sh tests` installs it", program)
		}
	}
	remove(t)
	t.Cleanup(func() { remove(t) })
	must(t, os.MkdirAll(base, 0o755))
	command(t, "mount", "-t", "tmpfs", "tmpfs", base)
	a, b := netnsOf("alpha"), netnsOf("beta")
	command(t, "ip", "netns", "add", a)
	command(t, "ip", "netns", "add", b)
	command(t, "ip", "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
	for ns, address := range map[string]string{a: "10.1.0.1/24", b: "10.1.0.2/24"} {
		command(t, "ip", "-n", ns, "link", "set", "lo", "up")
		command(t, "ip", "-n", ns, "address", "add", address, "dev", "eth0")
		command(t, "ip", "-n", ns, "link", "set", "eth0", "up")
	}
	return boot(t, "alpha", packages), boot(t, "beta", packages)
}

func boot(t *testing.T, name, packages string) *host {
	t.Helper()
	script, err := filepath.Abs("boot.sh")
	must(t, err)
	var said bytes.Buffer
	cmd := exec.Command("nsenter", "--net=/run/netns/"+netnsOf(name), script, name, filepath.Join(base, name), packages)
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err == nil { // and its systemd with it
			_ = cmd.Wait()
		}
	})
	h := &host{name: name, t: t}
	h.eventually("its systemd runs", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		fields := strings.Fields(string(children))
		if err != nil || len(fields) != 1 {
			return false
		}
		h.pid = fields[0]
		comm, err := os.ReadFile("/proc/" + h.pid + "/comm")
		if err != nil || strings.TrimSpace(string(comm)) != "systemd" {
			return false
		}
		out, _ := h.try("systemctl is-system-running")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
	h.run("mkdir -p /root/setup && ln -s /srv/packages/*.deb /root/setup/")
	return h
}

// try runs a script on the host, in its folder /root/setup, and returns everything that it says.
func (h *host) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", h.pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"bash", "-euo", "pipefail", "-c", "cd /root/setup 2>/dev/null || cd /\n"+script)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive",
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) run(script string) string {
	h.t.Helper()
	out, err := h.try(script)
	if err != nil {
		log, _ := h.try("journalctl --no-pager -o cat | tail -n 60")
		h.t.Fatalf("on %s: %s\n%v\n%s\nits log:\n%s", h.name, script, err, out, log)
	}
	return out
}

// says compares what a script prints with what it should.
func (h *host) says(script, want string) {
	h.t.Helper()
	if got := strings.TrimSpace(h.run(script)); got != want {
		h.t.Errorf("on %s: %s\nsays %q, want %q", h.name, script, got, want)
	}
}

func (h *host) eventually(what string, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; waittest.Pace(50 * time.Millisecond) {
		if is() {
			return
		}
		if time.Now().After(end) {
			log, _ := h.try("journalctl --no-pager -o cat | tail -n 60")
			h.t.Fatalf("on %s it did not come true that %s; its log:\n%s", h.name, what, log)
		}
	}
}

// remove takes away what this run, or one that crashed, has made.
func remove(t *testing.T) {
	for _, name := range []string{"alpha", "beta"} {
		dir := filepath.Join(base, name)
		group := filepath.Join(dir, "cgroup", "isthmus-install-"+name)
		_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
		for range 100 {
			groups := []string{}
			_ = filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					groups = append(groups, path)
				}
				return nil
			})
			if len(groups) == 0 {
				break
			}
			for i := len(groups) - 1; i >= 0; i-- {
				_ = os.Remove(groups[i])
			}
			waittest.Pace(20 * time.Millisecond)
		}
		_ = exec.Command("umount", "-l", filepath.Join(dir, "cgroup")).Run()
		_ = exec.Command("umount", "-l", filepath.Join(dir, "root")).Run()
		_ = exec.Command("ip", "netns", "delete", netnsOf(name)).Run()
	}
	_ = exec.Command("umount", "-l", base).Run()
	if err := os.Remove(base); err != nil && !os.IsNotExist(err) {
		t.Logf("left behind: %v", err)
	}
}
