package meshd

import (
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A control plane that comes back knows what it knew, and tells a proxy nothing that it has.
func TestRestartLosesNothing(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	used := p.token("node-a", snapshot.RoleNode, "default/shop")
	fresh := p.token("node-c", snapshot.RoleNode, "default/*")
	c, err := p.join(used)
	must(t, err)
	a := p.resume(c)
	a.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	hosts := a.hosts("default/shop")
	px := ads(t, a.conn, nil)
	px.until("configured", px.hasListener("outbound/default/shop"))
	px.rest()
	before := p.status()
	must(t, p.stop())

	p.start()
	after := p.status()
	if after.RootSHA256 != before.RootSHA256 {
		t.Error("it has another root")
	}
	if len(after.Proxies) != 2 || !reflect.DeepEqual(after.Proxies[0].Workloads, []string{"default/shop"}) ||
		!reflect.DeepEqual(after.Proxies[1].Workloads, []string{"default/payments"}) {
		t.Errorf("before its agents came back it knows %+v", after.Proxies)
	}
	back := p.resume(c)
	if _, err := back.sign("default", "shop"); err != nil {
		t.Errorf("a certificate before the agent reported: %v", err)
	}
	again := ads(t, back.conn, px.has)
	back.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	if now := back.hosts("default/shop"); !reflect.DeepEqual(now, hosts) {
		t.Errorf("virtual addresses were %v and are %v", hosts, now)
	}
	if n := again.rest(); n > 0 {
		t.Errorf("%d responses were sent to a proxy that has everything", n)
	}
	if _, err := p.join(used); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a used token after the restart: %v", err)
	}
	if _, err := p.join(fresh); err != nil {
		t.Errorf("an unused token after the restart: %v", err)
	}
}

// hosts are what a workload may resolve, by the next instructions that name it.
func (a *fakeAgent) hosts(workload string) (hosts map[string][]netip.Addr) {
	a.t.Helper()
	a.instructed("what "+workload+" may resolve", func(in *agentapi.Instructions) bool {
		hosts = in.DNS[workload].Hosts
		return len(hosts) > 0
	})
	return hosts
}

// What is wrong with a node is found again after a restart, though the node says nothing new.
func TestRestartFindsAgain(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	thief := agentapi.Report{Workloads: []snapshot.Workload{workload("thief", "payments", "10.0.0.9")}}
	a := p.agent("node-a", []string{"default/shop"}, thief.Workloads...)
	eventually(t, "it is found", func() bool { return p.found("ISM0013") != "" })
	must(t, p.stop())
	p.start()
	p.resume(a.credential).report(thief)
	eventually(t, "it is found again", func() bool { return p.found("ISM0013") != "" })
	must(t, p.stop())
	p.start()
	p.resume(a.credential).report(agentapi.Report{})
	eventually(t, "it is gone with its cause",
		func() bool { return p.found("ISM0013") == "" && len(p.status().Proxies) == 1 })
}

// A token that grants less takes away what a former one granted, also before the agent reports again.
func TestJoinAgainWithLess(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	a := p.agent("node-a", []string{"default/*"}, workload("payments", "payments", "10.0.0.2"))
	a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	_, err := a.sign("default", "payments")
	must(t, err)
	c, err := p.join(p.token("node-a", snapshot.RoleNode, "default/shop"))
	must(t, err)
	_, err = a.sign("default", "payments")
	wantCode(t, "the old conversation asks", err, codes.PermissionDenied)
	if _, said, _ := p.d.store.Said("node-a"); len(said) > 0 {
		t.Errorf("beyond its new grant it still hosts %v", said)
	}
	_, err = p.resume(c).sign("default", "payments")
	wantCode(t, "the new one asks", err, codes.PermissionDenied)
}

func TestTwoOfOneKind(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	contains(t, "the same state file", p.refusal(), p.cfg.StateFile, "another isthmus process uses it",
		"stop that one first")

	other := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	other.cfg.PeeringAddress = p.cfg.AgentAddress
	why := other.refusal()
	contains(t, "the same port", why, "peeringAddress", p.cfg.AgentAddress, "address already in use",
		"choose another address, or stop what uses it")
	if strings.Count(why, "\n") > 0 {
		t.Errorf("more than one sentence: %q", why)
	}
	other = newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	other.cfg.Socket = p.cfg.Socket
	contains(t, "the same socket", other.refusal(),
		"something serves at "+p.cfg.Socket+" already: stop it, or choose another path")
	if _, err := os.Stat(p.cfg.Socket); err != nil {
		t.Errorf("the first one's socket: %v", err)
	}
	p.status() // it still answers
}

// What a crash leaves behind does not keep the next one from starting.
func TestLeftOverSocket(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	l, err := net.Listen("unix", p.cfg.Socket)
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	p.start()
	p.status()
	must(t, p.stop())
	if _, err := os.Stat(p.cfg.Socket); !os.IsNotExist(err) {
		t.Errorf("its socket after the end: %v", err)
	}
}

func TestDamagedState(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	must(t, p.stop())
	good, err := os.ReadFile(p.cfg.StateFile)
	must(t, err)
	for name, bad := range map[string][]byte{
		"cut off": good[:len(good)/2],
		"emptied": {},
		"flipped": flip(good, len(good)/2),
		"garbage": []byte(strings.Repeat("garbage ", 1000)),
	} {
		must(t, os.WriteFile(p.cfg.StateFile, bad, 0o600))
		contains(t, name, p.refusal(), p.cfg.StateFile)
		if now, err := os.ReadFile(p.cfg.StateFile); err != nil || string(now) != string(bad) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
	must(t, os.Remove(p.cfg.StateFile))
	// its key says that there was a root: it is not begun anew in silence
	contains(t, "removed", p.refusal(), p.cfg.KeyFile)
	must(t, os.WriteFile(p.cfg.StateFile, good, 0o600))
	p.start()
	if n := len(p.status().Proxies); n != 1 {
		t.Errorf("with the good file back it knows %d proxies", n)
	}
}

// flip changes the whole page around a byte.
func flip(b []byte, at int) []byte {
	out := append([]byte(nil), b...)
	for i := at &^ 4095; i < min(at|4095, len(out)); i++ {
		out[i] ^= 0x55
	}
	return out
}
