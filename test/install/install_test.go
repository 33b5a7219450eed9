//go:build e2e

package install

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// build builds packages into a folder, uncompressed, and returns the sum of each file.
func build(t *testing.T, dir string, names []string, env ...string) map[string]string {
	t.Helper()
	cmd := exec.Command("../../tools/packages.sh", append([]string{dir}, names...)...)
	cmd.Env = append(append(os.Environ(), "COMPRESS=none"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the packages: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	must(t, err)
	sums := map[string]string{}
	for _, f := range files {
		content, err := os.ReadFile(f)
		must(t, err)
		sums[filepath.Base(f)] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return sums
}

// The page docs/install.md does what it says on two hosts, and what it makes is lossless in a restart and an upgrade,
// closed to others, and gone when it is removed.
func TestInstall(t *testing.T) {
	packages, err := os.MkdirTemp("/var/tmp", "isthmus-packages-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(packages) })
	first := build(t, packages, nil)
	if len(first) != 2 {
		t.Fatalf("built %v", first)
	}
	t.Run("the same bytes again", func(t *testing.T) {
		again := build(t, t.TempDir(), nil, "TZ=Asia/Tokyo", "LC_ALL=C")
		for name, sum := range first {
			if again[name] != sum {
				t.Errorf("%s is %s and then %s", name, sum, again[name])
			}
		}
	})
	newer := t.TempDir()
	build(t, newer, []string{"isthmus"}, "VERSION=99.0")

	alpha, beta := bootHosts(t, packages)
	runPage(t, "install.md", packages, alpha, beta)
	if t.Failed() {
		return
	}
	t.Run("units", func(t *testing.T) { testUnits(alpha.in(t)) })
	t.Run("modes", func(t *testing.T) { testModes(alpha.in(t)) })
	t.Run("workload socket", func(t *testing.T) { testWorkloadSocket(alpha.in(t)) })
	t.Run("gateway", func(t *testing.T) { testGateway(alpha.in(t)) })
	t.Run("adoption", func(t *testing.T) { testAdoption(alpha.in(t), beta.in(t), packages) })
	command(t, "sh", "-c", "cp "+newer+"/*.deb "+packages+"/newer.deb")
	t.Run("restart and upgrade", func(t *testing.T) { testUpgrade(alpha.in(t), beta.in(t)) })
	t.Run("namespace made anew", func(t *testing.T) { testNamespaceMadeAnew(alpha.in(t)) })
	t.Run("stop and remove", func(t *testing.T) { testRemove(alpha.in(t)) })
}

// in is the host for another test.
func (h host) in(t *testing.T) *host {
	h.t = t
	return &h
}

const (
	call              = "ip netns exec web curl -sS -m 5 --fail http://shop.back/teapot"
	envoyPID          = "head -1 /run/isthmus/%s/envoy.pid"
	capabilitiesOfPID = "awk '/^Cap(Eff|Bnd)/ {print $2}' /proc/$pid/status | sort -u"
	agentPID          = "systemctl show -P MainPID isthmus-%s"
)

func testUnits(h *host) {
	h.says("systemd-analyze verify /usr/lib/systemd/system/isthmus-*.service 2>&1", "")
	h.run("systemd-analyze security --no-pager --threshold=15 isthmus-control >/dev/null")
	h.run("systemd-analyze security --no-pager --threshold=20 isthmus-gateway >/dev/null")
	h.run("systemd-analyze security --no-pager --threshold=45 isthmus-node >/dev/null")
	capabilities := func(unit string) string {
		return strings.TrimSpace(h.run("pid=$(" + fmt.Sprintf(agentPID, unit) + "); " + capabilitiesOfPID))
	}
	if got := capabilities("control"); got != "0000000000000000" {
		h.t.Errorf("the control plane has capabilities %s", got)
	}
	if got := capabilities("node"); got != "0000000000283000" { // NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN
		h.t.Errorf("the node has capabilities %s", got)
	}
	h.says("dpkg -L isthmus | grep -cE "+
		"'/(man1/isthmus.1.gz|completions/isthmus|_isthmus|isthmus.fish|install.md|examples/node.yaml)$'", "6")
}

// Nobody else reads what is the mesh's.
func testModes(h *host) {
	h.says("stat -c '%A %U %G' /etc/isthmus /etc/isthmus/mesh", "drwxr-x--- root isthmus\ndrwxr-x--- root isthmus")
	h.says("stat -c %a /etc/isthmus/node.token", "600")
	h.says("cd /var/lib/isthmus/control; stat -c '%a %U' . state.db state.db.key",
		"700 isthmus\n600 isthmus\n600 isthmus")
	h.says("stat -c '%a %U' /var/lib/isthmus/node /var/lib/isthmus/node/identity.pem", "700 root\n600 root")
	h.says("stat -c '%a %U' /run/isthmus/control/control.sock /run/isthmus/node", "600 isthmus\n700 root")
	h.says("setpriv --reuid nobody --regid nogroup --clear-groups "+
		"find /etc/isthmus /var/lib/isthmus /run/isthmus -type f -readable 2>/dev/null || true", "")
}

// A program of any user finds the Workload API, and nothing else of the agent's.
func testWorkloadSocket(h *host) {
	const nobody = "ip netns exec web setpriv --reuid nobody --regid nogroup --clear-groups "
	h.run("echo '  workloadSocket: {}' >>/etc/isthmus/node.yaml; systemctl restart isthmus-node")
	h.eventually("a program can open the Workload API's socket", func() bool {
		_, err := h.try(nobody + "test -w /run/isthmus/node/workload/front/web.sock")
		return err == nil
	})
	h.says(nobody+
		"sh -c 'cd /run/isthmus/node; ls 2>/dev/null; for f in agent.sock admin.sock metrics.sock envoy.json access.log; "+
		"do [ ! -r $f -a ! -w $f ] || echo $f; done'", "")
}

const edge = `isthmus token create --role gateway --node edge --identity isthmus-system/gateway --out gateway.token
install -m 0600 -o isthmus-gateway gateway.token /etc/isthmus/gateway.token
cat >/etc/isthmus/gateway.yaml <<END
name: edge
control: {tokenFile: /etc/isthmus/gateway.token}
health: {address: "127.0.0.1:15041"}
gateway: {serviceAccount: gateway, innerAddress: 10.1.0.1, outerAddress: 10.1.0.1}
END
systemctl start isthmus-gateway`

// A gateway has no rights at all, and its Envoy outlives a restart of the agent, but not its stop.
func testGateway(h *host) {
	h.run(edge)
	connected := func() bool {
		out, err := h.try("isthmus status")
		return err == nil && regexp.MustCompile(`(?m)^edge +gateway +since .* current +up`).MatchString(out)
	}
	h.eventually("the gateway is connected", connected)
	envoy, agent := fmt.Sprintf(envoyPID, "gateway"), fmt.Sprintf(agentPID, "gateway")
	h.says("pid=$("+envoy+"); stat -c %U /proc/$pid; "+capabilitiesOfPID, "isthmus-gateway\n0000000000000000")
	before, first := h.run(envoy), h.run(agent)
	h.run("systemctl restart isthmus-gateway")
	h.eventually("the gateway is connected again", connected)
	if after := h.run(envoy); after != before {
		h.t.Errorf("a restart replaced the gateway's Envoy: process %s is now %s", before, after)
	}
	if second := h.run(agent); second == first {
		h.t.Errorf("the agent was not restarted: process %s", first)
	}
	h.run("systemctl stop isthmus-gateway")
	if out, err := h.try("kill -0 " + before); err == nil {
		h.t.Errorf("Envoy outlives the gateway's stop: %s", out)
	}
	h.run("systemctl start isthmus-gateway")
}

// caller asks again and again on one connection, until it is told to stop, and says what went wrong.
const caller = `cat >/root/caller.py <<'END'
import http.client, os, socket
c = http.client.HTTPConnection("shop.back", timeout=20)
c.connect()
first, asked = c.sock.getsockname(), 0
while not os.path.exists("/run/caller.stop"):
    c.request("GET", "/teapot")
    r = c.getresponse()
    body = r.read()
    assert (r.status, body) == (200, b"a teapot\n"), (asked, r.status, body)
    assert c.sock and c.sock.getsockname() == first, (asked, "the connection was closed")
    asked += 1
    if asked == 10: open("/run/caller.begun", "w")
print("no call failed" if asked > 10 else asked)
END
systemd-run -q --unit=caller -p NetworkNamespacePath=/run/netns/web -p BindReadOnlyPaths=/etc/netns/web/resolv.conf:/etc/resolv.conf \
	/usr/bin/python3 /root/caller.py`

// A connection that is open while control plane, agents and packages are replaced carries every call.
func testUpgrade(alpha, beta *host) {
	envoy := fmt.Sprintf(envoyPID, "node")
	before, before2 := alpha.run(envoy), beta.run(envoy)
	alpha.run(caller)
	alpha.eventually("the caller has begun",
		func() bool { _, err := alpha.try("test -e /run/caller.begun"); return err == nil })
	alpha.run("systemctl restart isthmus-node isthmus-control")
	beta.run("systemctl restart isthmus-node")
	for _, h := range []*host{alpha, beta} {
		was := h.run("systemctl show -P MainPID isthmus-node")
		h.run("dpkg -i /srv/packages/newer.deb")
		if is := h.run("systemctl show -P MainPID isthmus-node"); is == was {
			h.t.Errorf("the upgrade on %s did not restart the agent", h.name)
		}
		h.says("/usr/bin/isthmus version | cut -d' ' -f2", "99.0")
	}
	alpha.eventually("both nodes are back", func() bool {
		out, err := alpha.try("isthmus status")
		return err == nil && strings.Count(out, "current") == 3
	})
	alpha.run("touch /run/caller.stop")
	alpha.eventually("the caller has ended", func() bool {
		out, _ := alpha.try("systemctl is-active caller || true")
		return !strings.HasPrefix(out, "active")
	})
	alpha.says("journalctl -q _SYSTEMD_UNIT=caller.service -o cat --no-pager", "no call failed")
	if after, after2 := alpha.run(envoy), beta.run(envoy); after != before || after2 != before2 {
		alpha.t.Errorf("an upgrade replaced Envoy: %s is now %s, %s is now %s", before, after, before2, after2)
	}
}

// The sandbox of an agent, and that of the Envoy that it took over, see namespaces that are mounted later.
func testNamespaceMadeAnew(h *host) {
	h.run("systemctl restart isthmus-netns@web")
	h.eventually("web calls from its new namespace", func() bool {
		out, err := h.try(call)
		return err == nil && strings.Contains(out, "a teapot")
	})
}

func testRemove(h *host) {
	envoy := strings.TrimSpace(h.run(fmt.Sprintf(envoyPID, "node")))
	h.run("systemctl stop isthmus-node")
	if _, err := h.try("kill -0 " + envoy); err == nil {
		h.t.Error("Envoy outlives the node's stop")
	}
	if out, err := h.try(call); err == nil {
		h.t.Errorf("without an agent a call is answered: %s", out)
	}
	h.run("apt-get remove -y isthmus")
	h.says("systemctl list-units --no-legend --plain 'isthmus-*.service' | grep -v netns || true", "")
	h.says("ls /var/lib/isthmus; ls /etc/isthmus/mesh", "control\ngateway\nnode\nlab.yaml")
	h.run("apt-get purge -y isthmus isthmus-envoy")
	h.says("ls -d /var/lib/isthmus /run/isthmus /usr/lib/isthmus 2>/dev/null || ls /etc/isthmus/mesh", "lab.yaml")
}
