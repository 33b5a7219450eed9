//go:build e2e

package meshd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestDiskFull fills the disk under a running control plane. What must be written is refused, and the refusal names the disk;
// what need not be goes on: who is connected stays so, and policies are followed. When there is room again all goes on
// without a restart, and a restart finds all that was ever acknowledged.
func TestDiskFull(t *testing.T) {
	const (
		toPayments = "default/shop>payments.default.svc.cluster.local:80"
		toMore     = "default/shop>more.default.svc.cluster.local:80"
		more       = "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: default}\nspec: {selector: {app: more}, ports: [{name: http, port: 80}]}\n"
	)
	allowMore := strings.ReplaceAll(shopYAML[strings.Index(shopYAML, "---"):], "payments", "more")
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	disk := smallDisk(t)
	p.cfg.StateFile, p.cfg.KeyFile = filepath.Join(disk, "state.db"), filepath.Join(disk, "state.key")

	free := fill(t, disk)
	contains(t, "a first start on a full disk", p.refusal(), p.cfg.StateFile, "full")
	free()
	p.start()
	all := []string{"default/*"}
	a := p.agent("n1", all, workload("shop", "shop", "10.0.0.1"), workload("payments", "payments", "10.0.0.2"), workload("more", "more", "10.0.0.3"))
	eventually(t, "a certificate", func() bool { _, err := a.sign("default", "payments"); return err == nil })
	kept := p.token("n2", snapshot.RoleNode, all...)
	e := ads(t, a.conn, nil)
	calls := func(cluster string) func() bool {
		return func() bool { return e.has[envoy.ClusterType][cluster] != "" }
	}
	e.until("whom shop may call", calls(toPayments))

	free = fill(t, disk)
	_, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](soon(t), p.local(), "CreateToken",
		&adminapi.TokenRequest{Node: "n3", Role: snapshot.RoleNode, Identities: all})
	refusedForTheDisk(t, "a token", err, p.cfg.StateFile)
	_, err = a.sign("default", "payments")
	refusedForTheDisk(t, "a certificate", err, p.cfg.StateFile)
	if _, err = p.join(kept); err == nil {
		t.Error("a node joined although nothing could be written")
	}
	// A policy does not wait for the disk, not even beside a new name, which does.
	p.write("more.yaml", more+allowMore)
	p.write("shop.yaml", shopYAML[:strings.Index(shopYAML, "---")])
	e.until("nobody may call payments any more", func() bool { return !calls(toPayments)() })
	eventually(t, "the log names the disk", func() bool {
		return strings.Contains(p.logs.String(), "names that are new have no virtual address yet") && strings.Contains(p.logs.String(), "make room there")
	})
	select {
	case err := <-a.end:
		t.Errorf("the agent was cut off: %v", err)
	default:
	}

	free()
	e.until("the name that waited", calls(toMore))
	a.instructed("its address", func(in *agentapi.Instructions) bool {
		return len(in.DNS["default/shop"].Hosts["more.default.svc.cluster.local"]) == 1
	})
	eventually(t, "a certificate again", func() bool { _, err := a.sign("default", "payments"); return err == nil })
	after := p.token("n4", snapshot.RoleNode, all...)
	must(t, p.stop())
	p.start()
	for _, token := range []string{kept, after} {
		if _, err := p.join(token); err != nil {
			t.Errorf("a token that was acknowledged: %v", err)
		}
	}
	again := p.resume(a.credential)
	if _, err := again.sign("default", "payments"); err != nil {
		t.Errorf("the node as it was registered: %v", err)
	}
}

func refusedForTheDisk(t *testing.T, what string, err error, file string) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s was given on a full disk", what)
	}
	contains(t, what, err.Error(), file, "is full: make room there")
}

// smallDisk is a file system of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=700"); err != nil {
		t.Fatalf("mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill leaves no byte free, until free is called.
func fill(t *testing.T, disk string) (free func()) {
	t.Helper()
	path := filepath.Join(disk, "filler")
	f, err := os.Create(path)
	must(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}
