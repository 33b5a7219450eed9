//go:build e2e

package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

const (
	webID = "spiffe://t.example/ns/default/sa/web"
	payID = "spiffe://t.example/ns/default/sa/pay"
)

func (p *pair) socket(workload string) string {
	return filepath.Join(p.cfg.RunDir, "workload", "default", workload+".sock")
}

// newSPIFFEPair lets port 9443 pass Envoy: there the programs speak mTLS themselves.
func newSPIFFEPair(t *testing.T, name string) *pair {
	p := newPair(t, name)
	p.cfg.Capture.ExcludeOutboundPorts, p.cfg.Capture.ExcludeInboundPorts = []uint16{9443}, []uint16{9443}
	return p
}

func TestProgramsSpeakMTLSWithoutEnvoy(t *testing.T) {
	p := newSPIFFEPair(t, "spiffe")
	p.control.ttl = 4 * time.Second
	runAgent(t, p.cfg)
	server := startProgram(t, os.Args[0], p.pay, p.socket("pay-1"), "server", webID, 0)
	client := startProgram(t, os.Args[0], p.web, p.socket("web-1"), "client", "", 0)
	if got := server.next(15 * time.Second); got != "listening" {
		t.Fatal(got)
	}
	if got := client.next(15 * time.Second); got != "ready" {
		t.Fatal(got)
	}
	if got := client.do("call 10.79.0.3:9443 %s", payID); got != "server sees "+webID+" <nil>" {
		t.Errorf("a call: %s", got)
	}
	if got := client.do("call 10.79.0.3:9443 spiffe://t.example/ns/default/sa/other"); !strings.Contains(got,
		`unexpected ID "`+payID+`"`) {
		t.Errorf("the client expects somebody else: %s", got)
	}
	if got := server.next(5 * time.Second); !strings.HasPrefix(got, "refused: ") {
		t.Errorf("the server: %s", got)
	}
	// pay itself is not whom the server trusts.
	stranger := startProgram(t, os.Args[0], p.pay, p.socket("pay-1"), "client", "", 0)
	if got := stranger.next(5 * time.Second); got != "ready" {
		t.Fatal(got)
	}
	if got := stranger.do("call 10.79.0.3:9443 %s", payID); !strings.HasPrefix(got, "failed: ") {
		t.Errorf("a caller that the server does not trust: %s", got)
	}
	if got := server.next(5 * time.Second); !strings.Contains(got, `unexpected ID "`+payID+`"`) {
		t.Errorf("the server: %s", got)
	}

	var calls, certificates int
	got := client.do("keep 10.79.0.3:9443 %s 9s", payID)
	if n, err := fmt.Sscanf(got, "%d calls, %d certificates", &calls, &certificates); n != 2 || err != nil ||
		certificates < 4 {
		t.Errorf("over renewals: %s", got)
	}
	t.Log("over renewals: " + got)
}

func TestProgramsHearOfRootsAndOutliveTheAgent(t *testing.T) {
	p := newSPIFFEPair(t, "roots")
	agent := startAgent(t, p.file(t))
	client := startProgram(t, os.Args[0], p.web, p.socket("web-1"), "client", "", 0)
	first := client.next(15 * time.Second)
	for range 20 { // its socket may come later than it
		if first == "ready" {
			break
		}
		first = client.next(15 * time.Second)
	}
	if got := client.do("roots"); got != "1 roots" {
		t.Errorf("at first: %s", got)
	}
	p.control.stop()
	p.control.tell.Roots = append(p.control.rootPEM(), newFakeControl(t, "another").rootPEM()...)
	p.control.start(p.control.address)
	eventually(t, 10*time.Second, "a second root at the program", func() error {
		if got := client.do("roots"); got != "2 roots" {
			return errors.New(got)
		}
		return nil
	})

	serial := client.do("serial")
	end(agent, syscall.SIGKILL)
	if _, err := os.Lstat(p.socket("web-1")); err != nil {
		t.Errorf("the killed agent's socket should lie there: %v", err)
	}
	if got := client.do("serial"); got != serial {
		t.Errorf("without an agent: %s, before %s", got, serial)
	}
	_, stop := runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "the next agent's certificate at the program", func() error {
		if got := client.do("serial"); got == serial {
			return errors.New("still the old one")
		}
		return nil
	})
	if got := client.do("roots"); got != "2 roots" {
		t.Errorf("from the next agent: %s", got)
	}
	stop()
	for _, w := range []string{"web-1", "pay-1"} {
		if _, err := os.Lstat(p.socket(w)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after the stop the socket of %s: %v", w, err)
		}
	}
}

func TestCallersAreKnownByNamespaceAndUser(t *testing.T) {
	p := newSPIFFEPair(t, "callers")
	dir := filepath.Dir(p.cfg.RunDir)
	must(t, os.Chmod(dir, 0o711)) // as /run/isthmus is
	binary := copyOf(t, filepath.Join(dir, "program"))
	p.cfg.Workloads[1].WorkloadSocket.Users = []uint32{1001}
	a, _ := runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "joined", func() error {
		if a.control.Identity() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	web, pay := p.socket("web-1"), p.socket("pay-1")
	for _, c := range []struct {
		name, ns, socket string
		user             uint32
		want             string
	}{
		{"web as root", p.web, web, 0, "got " + webID},
		{"web as anybody", p.web, web, 1002, "got " + webID},
		{"pay as its user", p.pay, pay, 1001, "got " + payID},
		{"pay as another user", p.pay, pay, 1002, "refused: PermissionDenied"},
		{"pay as root", p.pay, pay, 0, "refused: PermissionDenied"},
		{"web at the socket of pay", p.web, pay, 1001, "refused: PermissionDenied"},
		{"pay at the socket of web", p.pay, web, 1001, "refused: PermissionDenied"},
		{"the host at the socket of web", "", web, 0, "refused: PermissionDenied"},
	} {
		if got := startProgram(t, binary, c.ns, c.socket, "fetch", "", c.user).next(10 * time.Second); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}

	entries, err := os.ReadDir(p.cfg.RunDir)
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if open := info.Mode().Perm()&0o077 != 0; open != (e.Name() == "workload") {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

// A namespace that is made again under its path is another one: those who live in the old are strangers.
func TestTheOldNamespaceIsRefused(t *testing.T) {
	p := newSPIFFEPair(t, "again-ns")
	p.control.ttl = 4 * time.Second
	runAgent(t, p.cfg)
	client := startProgram(t, os.Args[0], p.web, p.socket("web-1"), "client", "", 0)
	if got := client.next(15 * time.Second); got != "ready" {
		t.Fatal(got)
	}
	p.web = newNetns(t, "again-ns-web")
	if got := startProgram(t, os.Args[0], p.web, p.socket("web-1"), "fetch", "",
		0).next(10 * time.Second); got != "got "+webID {
		t.Errorf("from the new namespace: %s", got)
	}
	waittest.Pace(500 * time.Millisecond) // its stream ends
	serial := client.do("serial")
	waittest.Quiet(3 * time.Second) // past a renewal
	if got := client.do("serial"); got != serial {
		t.Errorf("a process of the old namespace got the new certificate: %s, before %s", got, serial)
	}
}

// copyOf makes this test's program one that every user may run.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	from, err := os.Open(os.Args[0])
	must(t, err)
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))
	return path
}
