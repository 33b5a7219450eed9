package control

import (
	"context"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestComplaints: the log tells a control plane that is away from one that refuses the agent, and does not repeat
// itself.
func TestComplaints(t *testing.T) {
	var out strings.Builder
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := New(Config{
		Log: slog.New(slog.NewTextHandler(&out, nil)), Role: snapshot.RoleGateway,
		Addresses: []string{"10.0.0.1:15012"}, Now: func() time.Time { return now },
	})
	var said outage
	for _, step := range []struct {
		after time.Duration
		err   error
		want  string // nothing: no line
	}{
		{
			0, status.Error(codes.PermissionDenied, "node gw was revoked"),
			`level=ERROR msg="the control plane refuses this agent, trying again" role=gateway control=[10.0.0.1:15012] reason="node gw was revoked"`,
		},
		{3 * time.Second, status.Error(codes.PermissionDenied, "node gw was revoked"), ""},
		{
			time.Second,
			status.Error(codes.Unavailable,
				`connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:15012: connect: connection refused"`),
			`level=WARN msg="control plane unreachable, trying again" control=[10.0.0.1:15012] error="dial tcp 10.0.0.1:15012: connect: connection refused"`,
		},
		{
			time.Second, errNoAnswer,
			`level=WARN msg="control plane unreachable, trying again" control=[10.0.0.1:15012] error="the control plane does not answer"`,
		},
		{59 * time.Second, errNoAnswer, ""},
		{
			time.Second, errNoAnswer,
			`level=WARN msg="control plane unreachable, trying again" control=[10.0.0.1:15012] error="the control plane does not answer"`,
		},
	} {
		out.Reset()
		now = now.Add(step.after)
		c.logOutage(&said, step.err)
		_, got, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
		if got != step.want {
			t.Errorf("after %s, %v: it said %q, want %q", step.after, step.err, got, step.want)
		}
	}
}

// TestAnotherNodesToken is refused before the control plane sees it: the node that it is for can still use it.
func TestAnotherNodesToken(t *testing.T) {
	body := `{"id":"00000000000000aa","secret":"` + strings.Repeat("A",
		43) + `","node":"rack1","role":"node","fingerprint":"` +
		strings.Repeat("0", 64) + `","addresses":["192.0.2.1:15012"]}`
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("isthmus-join-v1."+base64.RawURLEncoding.EncodeToString([]byte(body))),
		0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		node string
		role snapshot.Role
		want string
	}{
		{
			"rack9", snapshot.RoleNode,
			`is for node "rack1", the settings are those of node "rack9": correct name, or make a token with ` +
				"`isthmus token create --node rack9`",
		},
		{"rack1", snapshot.RoleGateway, `is for node "rack1", the settings are those of gateway "rack1"`},
	} {
		client := New(Config{
			Log: slog.New(slog.DiscardHandler), Node: c.node, Role: c.role, TokenFile: file,
			IdentityFile: file + ".pem",
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := client.Run(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.role, c.node, err, c.want)
		}
	}
}

// TestAddressesOutliveTheToken: an agent that joined finds its control plane again without the token, whose file may be
// gone.
func TestAddressesOutliveTheToken(t *testing.T) {
	dir := t.TempDir()
	file, keep := filepath.Join(dir, "token"), filepath.Join(dir, "identity.pem")
	body := `{"id":"00000000000000aa","secret":"` + strings.Repeat("A",
		43) + `","node":"n","role":"node","fingerprint":"` +
		strings.Repeat("0", 64) + `","addresses":["192.0.2.1:15012","[2001:db8::1]:15012"]}`
	if err := os.WriteFile(file, []byte("isthmus-join-v1."+base64.RawURLEncoding.EncodeToString([]byte(body))),
		0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = New(Config{Log: log, Node: "n", Role: snapshot.RoleNode, TokenFile: file, IdentityFile: keep}).Run(ctx)
	if err := identity.Save(keep, selfSigned(t)); err != nil { // as if it had joined
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", file} {
		c := New(Config{Log: log, Node: "n", Role: snapshot.RoleNode, TokenFile: token, IdentityFile: keep})
		if _, err := c.join(t.Context()); err != nil ||
			strings.Join(c.cfg.Addresses, " ") != "192.0.2.1:15012 [2001:db8::1]:15012" {
			t.Errorf("token file %q: %v, %v", token, c.cfg.Addresses, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "control-addresses")); err != nil {
		t.Fatal(err)
	}
	c := New(Config{Log: log, Node: "n", Role: snapshot.RoleNode, IdentityFile: keep})
	if _, err := c.join(t.Context()); err == nil || !strings.Contains(err.Error(), "control.addresses is empty") {
		t.Errorf("nothing kept: %v", err)
	}
}
