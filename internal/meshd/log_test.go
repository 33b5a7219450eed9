package meshd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newBoundedLog(slog.NewTextHandler(&out, nil)))
		for i := range 5_000 {
			log.Warn("refused", "node", "stolen", "text", fmt.Sprint(i))
		}
		log.Warn("refused", "node", "honest", "text", "one")
		log.Warn("something else", "error", errors.New(strings.Repeat("ä", 9_999)))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 1_002 || !strings.Contains(lines[1_000], "honest") {
			t.Fatalf("%d lines", len(lines))
		}
		if last := lines[1_001]; len(last) > 4_300 || !strings.HasSuffix(last, "ä…") {
			t.Errorf("a long text: %d bytes, …%s", len(last), last[len(last)-20:])
		}
		waittest.Advance(time.Second)
		out.Reset()
		log.Warn("refused", "node", "stolen", "text", "later")
		if got := out.String(); !strings.HasSuffix(got, "node=stolen text=later leftOut=4000\n") {
			t.Errorf("after a while: %s", got)
		}
	})
}

// What a node asks for and may not have fills no log, however often and however lengthily it asks.
func TestANodeDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	c, err := p.join(p.token("node-a", snapshot.RoleNode, "default/a"))
	must(t, err)
	conn, before := p.as(c), len(p.logs.String())
	for i := range 1_500 {
		account := fmt.Sprintf("%s%d", strings.Repeat("a", 10_000), i)
		_, err := agentapi.Client{Conn: conn}.Sign(soon(t),
			&agentapi.SignRequest{Namespace: "default", ServiceAccount: account})
		wantCode(t, "a foreign account", err, codes.PermissionDenied)
	}
	if grown := len(p.logs.String()) - before; grown > 700<<10 {
		t.Errorf("the log grew by %d KB", grown>>10)
	}
}

// People paste tokens where a name belongs. The one for a join token's ID is taken for it; none is written down.
func TestTokensInTheWrongPlaceAreNotWrittenDown(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	token, peering := p.token("node-a", snapshot.RoleNode, "default/a"),
		"isthmus-peer-v1."+strings.Repeat("c2VjcmV0", 20)
	must(t, trying(t, p.local(), "TokenCancel", &adminapi.TokenCancelRequest{ID: token}))
	_, err := p.join(token)
	wantCode(t, "a cancelled token", err, codes.PermissionDenied)
	for _, pasted := range []string{token, peering, "my-" + token} {
		for method, r := range map[string]any{
			"TokenCancel": &adminapi.TokenCancelRequest{ID: pasted}, "RevokeNode": &adminapi.NodeRequest{Node: pasted},
			"PeerSuspend": &adminapi.PeerRequest{Peer: pasted}, "PeerInvite": &adminapi.PeerInviteRequest{Peer: pasted},
			"PeerAccept":  &adminapi.PeerAcceptRequest{Token: "x", Name: pasted},
			"AdminRevoke": &adminapi.AdminRevokeRequest{Name: pasted},
			"AdminCert":   &adminapi.AdminCertRequest{Name: pasted},
		} {
			_ = p.local().Invoke(soon(t), "/"+adminapi.Service+"/"+method, r, &map[string]any{},
				grpc.CallContentSubtype("json"))
		}
	}
	written := fmt.Sprint(p.events(adminapi.EventsRequest{Limit: 1000}), p.logs.String())
	for _, file := range []string{p.cfg.StateFile, p.cfg.StateFile + "-wal"} {
		raw, err := os.ReadFile(file)
		must(t, err)
		written += string(raw)
	}
	for _, secret := range []string{token[40:80], peering[40:80]} {
		if at := strings.Index(written, secret); at >= 0 {
			t.Errorf("a token is written down: …%q", written[max(0, at-200):at])
		}
	}
	if !strings.Contains(written, "node isthmus-join-v1.[redacted]") {
		t.Error("the mistake itself is not on record")
	}
}
