package cli

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/grant"
)

func TestAdminList(t *testing.T) {
	f := &fake{admins: adminapi.AdminListResponse{Admins: []adminapi.AdminCert{
		{
			ID: "00000000000000a1", Name: "alice", Serial: "4000000000000000a1ff", Created: now.Add(-time.Hour),
			MadeBy: "user root (uid 0)", NotAfter: now.Add(7 * time.Hour),
		},
		{
			ID: "00000000000000a2", Name: "alice", Created: now.Add(-9 * time.Hour), MadeBy: "user root (uid 0)",
			NotAfter: now.Add(-time.Hour),
		},
		{
			ID: "00000000000000b1", Name: "bob\x1b[2J", Created: now.Add(-time.Hour), MadeBy: "user root (uid 0)",
			NotAfter: now.Add(7 * time.Hour), Revoked: now.Add(-time.Minute),
		},
	}}}
	got := run(t, "", "admin", "list", "--socket", serve(t, f))
	expect(t, got, 0)
	same(t, got.out, `NAME     ID                MADE     BY                 ENDS           STATE
alice    00000000000000a1  60m ago  user root (uid 0)  in 7h          good
alice    00000000000000a2  9h ago   user root (uid 0)  ended 60m ago  ended
bob?[2J  00000000000000b1  60m ago  user root (uid 0)  in 7h          revoked 60s ago
`)
}

func TestAdminRevoke(t *testing.T) {
	f := &fake{
		adminsRevoked: adminapi.AdminRevokeResponse{Admins: []adminapi.AdminCert{{
			ID:   "00000000000000a1",
			Name: "alice",
		}}},
	}
	socket := serve(t, f)
	expect(t, run(t, "", "admin", "revoke", "--socket", socket), 64, "give an administrator's name, or --id")
	expect(t, run(t, "", "admin", "revoke", "alice", "--id", "a1", "--socket", socket), 64,
		"give an administrator's name, or --id")
	expect(t, run(t, "", "admin", "revoke", "alice", "--socket", socket), 64, "There is nobody to confirm it")
	got := run(t, "", "admin", "revoke", "alice", "--yes", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `Revoked certificate 00000000000000a1 of administrator alice.
  Next: isthmus token list, for the join tokens that were made with it
`)
	if f.asked != (adminapi.AdminRevokeRequest{Name: "alice"}) {
		t.Errorf("asked %+v", f.asked)
	}
	f.adminsRevoked.Unwritten = "the disk is full"
	expect(t, run(t, "", "admin", "revoke", "--id", "00000000000000a1", "--yes", "--socket", socket), 0,
		"In force, but not stored yet", "the disk is full")
	if f.asked != (adminapi.AdminRevokeRequest{ID: "00000000000000a1"}) {
		t.Errorf("asked %+v", f.asked)
	}
}

func TestTokenList(t *testing.T) {
	f := &fake{tokens: adminapi.TokenListResponse{Tokens: []adminapi.TokenInfo{
		{
			ID: "00000000000000a1", Node: "rack1", Role: "node", Grant: grant.Grant{
				Identities: []string{"default/a", "default/b", "default/c", "default/d"},
				Workloads:  []grant.Workload{{Namespace: "default", Name: "e"}},
			}, Created: now.Add(-time.Minute), MadeBy: "administrator alice", Expires: now.Add(14 * time.Minute),
			State: "open",
		},
		{
			ID: "00000000000000a2", Node: "rack2", Role: "node", Grant: grant.Grant{Identities: []string{"*"}},
			Created: now.Add(-time.Minute), MadeBy: "administrator alice", Expires: now.Add(14 * time.Minute),
			State: "used", UsedBy: "10.0.0.7",
		},
	}}}
	socket := serve(t, f)
	got := run(t, "", "token", "list", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `ID                NODE   ROLE  STATE  ENDS    MADE     BY                   GRANTS
00000000000000a1  rack1  node  open   in 14m  60s ago  administrator alice  default/a default/b default/c and 2 more
`)
	same(t, run(t, "", "token", "list", "--all", "--socket", socket).out, `ID                NODE   ROLE  STATE               ENDS    MADE     BY                   GRANTS
00000000000000a1  rack1  node  open                in 14m  60s ago  administrator alice  default/a default/b default/c and 2 more
00000000000000a2  rack2  node  used from 10.0.0.7  in 14m  60s ago  administrator alice  *
`)
	f.tokens.Tokens = nil
	same(t, run(t, "", "token", "list", "--socket", socket).out,
		"No join token; isthmus token list --all has those that ended in the last day.\n")
}

func TestTokenCancel(t *testing.T) {
	f := &fake{cancelled: adminapi.TokenCancelResponse{Cancelled: 3}}
	socket := serve(t, f)
	got := run(t, "", "token", "cancel", "00000000000000a1", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, "Made 3 join tokens void.\n")
	if f.asked != (adminapi.TokenCancelRequest{ID: "00000000000000a1"}) {
		t.Errorf("asked %+v", f.asked)
	}
	expect(t, run(t, "", "token", "cancel", "--made-by", "administrator alice", "--socket", socket), 0)
	if f.asked != (adminapi.TokenCancelRequest{MadeBy: "administrator alice"}) {
		t.Errorf("asked %+v", f.asked)
	}
	expect(t, run(t, "", "token", "cancel", "--socket", socket), 64, "give a token's ID, or --made-by")
	expect(t,
		run(t, "", "token", "cancel", "x", "--socket", serve(t, refuse(codes.FailedPrecondition, "was used already"))),
		1, "was used already")
}
