//go:build e2e

package meshd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state/statetest"
)

// TestDiskFull fills the disk under a running control plane. What must be written is refused, and the refusal names the
// disk; what need not be goes on: who is connected stays so, and policies are followed. When there is room again all
// goes on without a restart, and a restart finds all that was ever acknowledged.
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
	a := p.agent("n1", all, workload("shop", "shop", "10.0.0.1"), workload("payments", "payments", "10.0.0.2"),
		workload("more", "more", "10.0.0.3"))
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
		return strings.Contains(p.logs.String(), "new names have no virtual address yet") &&
			strings.Contains(p.logs.String(), "make room there")
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

// TestRevokingOnAFullDisk: what is revoked or cancelled is so at once, the answer says that it is not written, and it
// is written as soon as there is room, before anybody joins.
func TestRevokingOnAFullDisk(t *testing.T) {
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	disk := smallDisk(t)
	p.cfg.StateFile, p.cfg.KeyFile = filepath.Join(disk, "state.db"), filepath.Join(disk, "state.key")
	p.start()
	a := p.agent("n1", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	shut, spare := p.token("n2", snapshot.RoleNode, "default/*"), p.token("n1", snapshot.RoleNode, "default/*")
	alice := p.as(p.adminCert("alice"))
	ask[adminapi.StatusResponse](t, alice, "Status", &adminapi.Empty{})
	id := ask[adminapi.TokenListResponse](t, p.local(), "TokenList", &adminapi.Empty{}).Tokens[1].ID

	free := fill(t, disk)
	for what, unwritten := range map[string]string{
		"a node": ask[adminapi.RevokedNode](t, p.local(), "RevokeNode",
			&adminapi.NodeRequest{Node: "n1"}).Unwritten,
		"an administrator": ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke",
			&adminapi.AdminRevokeRequest{Name: "alice"}).Unwritten,
		"a token": ask[adminapi.TokenCancelResponse](t, p.local(), "TokenCancel",
			&adminapi.TokenCancelRequest{ID: id}).Unwritten,
	} {
		contains(t, what, unwritten, p.cfg.StateFile, "is full: make room there")
	}
	wantCode(t, "its conversation", received(t, "its conversation", a.end), codes.PermissionDenied)
	_, err := a.sign("default", "shop")
	wantCode(t, "a certificate", err, codes.PermissionDenied)
	_, err = adminapi.Call[adminapi.Empty, adminapi.StatusResponse](soon(t), alice, "Status", &adminapi.Empty{})
	wantCode(t, "the administrator", err, codes.PermissionDenied)
	eventually(t, "the node is gone from the mesh", func() bool { return len(p.status().Proxies) == 0 })
	unwritten := func() (detail string) {
		for _, c := range ask[adminapi.CheckResponse](t, p.local(), "Check", &adminapi.Empty{}).Checks {
			if c.Name == "revocations" {
				detail = c.State + ": " + c.Detail
			}
		}
		return detail
	}
	contains(t, "isthmus check", unwritten(), "failed: in force", "revocation of node n1",
		"revocation of administrator alice", "cancellation of join token "+id)

	free()
	for what, token := range map[string]string{"cancelled": shut, "of a revoked node": spare} {
		if _, err := p.join(token); err == nil {
			t.Errorf("a token that was %s, as soon as there is room", what)
		}
	}
	eventually(t, "all is written", func() bool { return unwritten() == "" })
	must(t, p.stop())
	p.start()
	_, err = p.resume(a.credential).sign("default", "shop")
	wantCode(t, "the node after a restart", err, codes.PermissionDenied)
	_, err = adminapi.Call[adminapi.Empty, adminapi.StatusResponse](soon(t), alice, "Status", &adminapi.Empty{})
	wantCode(t, "the administrator after a restart", err, codes.PermissionDenied)
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
	dir := statetest.Dir(t)
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
