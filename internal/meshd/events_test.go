package meshd

import (
	"database/sql"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

func (p *plane) events(f adminapi.EventsRequest) []adminapi.Event {
	p.t.Helper()
	return ask[adminapi.EventsResponse](p.t, p.local(), "Events", &f).Events
}

// told is an event without what differs from run to run.
func told(e adminapi.Event) string {
	return strings.Join([]string{e.Actor, e.From, e.Action, e.Object, e.Outcome}, " | ")
}

func trying[Req any](t *testing.T, conn *grpc.ClientConn, method string, r *Req) error {
	t.Helper()
	_, err := adminapi.Call[Req, map[string]any](soon(t), conn, method, r)
	return err
}

// Every action is on record: who, from where, what, and how it ended. So is every refusal, and no secret.
func TestEveryActionIsOnRecord(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	token := p.token("node-a", snapshot.RoleNode, "default/shop")
	node, err := p.join(token)
	must(t, err)
	ada := p.adminCert("ada")
	remote, asNode := p.as(ada), p.as(node)
	stranger := (&callers{plane: p}).conn(nil)

	spare := ask[adminapi.TokenResponse](t, remote, "CreateToken",
		&adminapi.TokenRequest{Node: "node-b", Role: snapshot.RoleNode, Identities: []string{"default/*"}}).Token
	ids := ask[adminapi.TokenListResponse](t, remote, "TokenList", &adminapi.Empty{}).Tokens
	tokenID := ids[0].ID
	spareID := ids[slices.IndexFunc(ids, func(i adminapi.TokenInfo) bool { return i.Node == "node-b" })].ID
	must(t, trying(t, remote, "TokenCancel", &adminapi.TokenCancelRequest{ID: spareID}))
	wantCode(t, "no such node", trying(t, remote, "RevokeNode", &adminapi.NodeRequest{Node: "node-z"}), codes.NotFound)
	must(t, trying(t, remote, "RevokeNode", &adminapi.NodeRequest{Node: "node-a"}))
	for method, r := range map[string]any{
		"PeerInvite":  &adminapi.PeerInviteRequest{Peer: "retail"},
		"PeerAccept":  &adminapi.PeerAcceptRequest{Token: spare, Name: "retail"},
		"PeerSuspend": &adminapi.PeerRequest{Peer: "retail"}, "PeerResume": &adminapi.PeerRequest{Peer: "retail"},
		"PeerRevoke": &adminapi.PeerRequest{Peer: "retail"},
		"PeerTerms":  &adminapi.PeerTermsRequest{Peer: "retail", Never: true},
	} {
		if err := remote.Invoke(soon(t), "/"+adminapi.Service+"/"+method, r, &map[string]any{},
			grpc.CallContentSubtype("json")); err == nil {
			t.Errorf("%s was carried out without a peer", method)
		}
	}
	must(t, trying(t, p.local(), "CARotate", &adminapi.CARotateRequest{}))
	must(t, trying(t, p.local(), "CARotate", &adminapi.CARotateRequest{Cancel: true}))
	must(t, trying(t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{Name: "ada"}))

	// What is refused.
	if trying(t, remote, "Status", &adminapi.Empty{}) == nil {
		t.Error("a revoked administrator is answered")
	}
	eva := p.as(p.adminCert("eva"))
	wantCode(t, "an administrator makes another",
		trying(t, eva, "AdminCert", &adminapi.AdminCertRequest{Name: "mallory"}), codes.PermissionDenied)
	for range 3 {
		wantCode(t, "a stranger", trying(t, stranger, "RevokeNode", &adminapi.NodeRequest{Node: "x"}),
			codes.Unauthenticated)
	}
	wantCode(t, "a node", trying(t, asNode, "CreateToken", &adminapi.TokenRequest{Node: "x"}), codes.PermissionDenied)
	_, err = p.join(token)
	wantCode(t, "a used token", err, codes.PermissionDenied)
	_, err = p.join(spare)
	wantCode(t, "a cancelled token", err, codes.PermissionDenied)
	_, err = agentapi.Client{Conn: stranger}.Attest(soon(t),
		&agentapi.AttestRequest{Token: "x", CSR: csr(t, newKey(t))})
	wantCode(t, "no token", err, codes.PermissionDenied)

	uid := os.Geteuid()
	me, err := user.LookupId(fmt.Sprint(uid))
	must(t, err)
	root := fmt.Sprintf("user %s (uid %d) | local socket | ", me.Username, uid)
	var actions, refused []string
	all := p.events(adminapi.EventsRequest{Limit: 1000})
	for _, e := range all {
		if e.Seq > 0 {
			actions = append(actions, told(e))
		} else {
			refused = append(refused, fmt.Sprintf("%s | %s | %d", told(e), e.Detail, e.Count))
		}
	}
	if len(actions) == 17 {
		slices.Sort(actions[7:13]) // were done in any order
	}
	same(t, "actions", actions, []string{
		root + "token create | node node-a | ok",
		"node node-a | 127.0.0.1 | node join | node node-a | ok",
		root + "admin cert | administrator ada | ok",
		"administrator ada | 127.0.0.1 | token create | node node-b | ok",
		"administrator ada | 127.0.0.1 | token cancel | join token " + spareID + " | ok",
		"administrator ada | 127.0.0.1 | node revoke | node node-z | failed",
		"administrator ada | 127.0.0.1 | node revoke | node node-a | ok",
		"administrator ada | 127.0.0.1 | peer accept | peer retail | failed",
		"administrator ada | 127.0.0.1 | peer invite | peer retail | failed",
		"administrator ada | 127.0.0.1 | peer resume | peer retail | failed",
		"administrator ada | 127.0.0.1 | peer revoke | peer retail | failed",
		"administrator ada | 127.0.0.1 | peer set | peer retail | failed",
		"administrator ada | 127.0.0.1 | peer suspend | peer retail | failed",
		root + "ca rotate | root | ok",
		root + "ca rotate | root | ok",
		root + "admin revoke | administrator ada | ok",
		root + "admin cert | administrator eva | ok",
	})
	slices.Sort(refused)
	want := []string{
		"administrator ada | 127.0.0.1 | status |  | refused | this certificate of administrator ada was revoked | 1",
		"administrator eva | 127.0.0.1 | admin cert |  | refused | administrator eva may not do this: it is done on the control plane's own host, over its socket | 1",
		"node node-a | 127.0.0.1 | token create |  | refused | node node-a may not do this: it takes an administrator's certificate; make one with 'isthmus admin cert' on the control plane's host | 1",
		"stranger | 127.0.0.1 | node join |  | refused | join token refused: malformed: it must begin with \"isthmus-join-v1.\" and have at most 8192 characters: copy it whole, as `isthmus token create` printed it | 1",
		"stranger | 127.0.0.1 | node join | " + spareID + " | refused | cancelled | 1",
		"stranger | 127.0.0.1 | node revoke |  | refused | a client certificate of this mesh is needed | 3",
		"stranger | 127.0.0.1 | node join | " + tokenID + " | refused | cancelled | 1",
	}
	slices.Sort(want)
	same(t, "refusals", refused, want)
	// Each kind of action was done above.
	done := map[string]bool{}
	for _, e := range all {
		done[e.Action] = true
	}
	for name, m := range methods {
		if m.Recorded && !done[m.Action] {
			t.Errorf("%s is not tried here", name)
		}
	}
	text := fmt.Sprint(all)
	for _, secret := range []string{token, spare, token[len("isthmus-join-v1."):][:40]} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is on record: %.20s…", secret)
		}
	}
	if e := p.events(adminapi.EventsRequest{Action: "admin cert", Actor: "user"}); len(e) != 2 ||
		!strings.HasPrefix(e[0].Detail, fmt.Sprintf("pid %d; made certificate ", os.Getpid())) {
		t.Errorf("what was made is not said: %+v", e)
	}
}

// An action that cannot be recorded is not done; shutting out is, and the log says so.
func TestChangesWithoutARecord(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	_, err := p.join(p.token("node-a", snapshot.RoleNode, "default/shop"))
	must(t, err)
	p.noRecords(t)
	err = trying(t, p.local(), "CreateToken",
		&adminapi.TokenRequest{Node: "node-b", Role: snapshot.RoleNode, Identities: []string{"default/*"}})
	wantCode(t, "a token", err, codes.Unavailable)
	contains(t, "the refusal", status.Convert(err).Message(), "not done, because it cannot be recorded",
		"no more room for events")
	if tokens := ask[adminapi.TokenListResponse](t, p.local(), "TokenList",
		&adminapi.Empty{}).Tokens; len(tokens) != 1 {
		t.Errorf("the token was made: %+v", tokens)
	}
	must(t, trying(t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"}))
	if n := len(p.status().Proxies); n != 0 {
		t.Errorf("%d proxies: the node was not revoked", n)
	}
	contains(t, "the log", p.logs.String(), "carried out without a record", "node revoke", "node node-a")
}

// noRecords makes the state refuse events, as a full disk would, and nothing else.
func (p *plane) noRecords(t *testing.T) {
	t.Helper()
	// the control plane writes too
	raw, err := sql.Open("sqlite", "file:"+p.cfg.StateFile+"?_pragma=busy_timeout(10000)")
	must(t, err)
	defer raw.Close()
	_, err = raw.ExecContext(t.Context(),
		"CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'no more room for events'); END")
	must(t, err)
}
