package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
)

func TestNodeRevoke(t *testing.T) {
	f := &fake{revoked: adminapi.RevokedNode{Node: "rack1", Certificates: []adminapi.RevokedCert{
		{SPIFFEID: "spiffe://cards.example/ns/default/sa/payments", NotAfter: now.Add(42 * time.Minute)},
	}}}
	socket := serve(t, f)
	expect(t, run(t, "", "node", "revoke", "rack1", "--socket", socket), 64, "There is nobody to confirm it",
		"node revoke rack1 --socket "+socket+" --yes")
	asked := World{In: strings.NewReader("rack2\n"), Terminal: true}
	expect(t, runAs(t, asked, Verbs{}, "node", "revoke", "rack1", "--socket", socket), 1, "nothing was changed")
	if len(f.acted) > 0 {
		t.Errorf("done without consent: %v", f.acted)
	}
	got := run(t, "", "node", "revoke", "rack1", "--socket", socket, "--yes")
	expect(t, got, 0)
	same(t, got.out, `Revoked "rack1": the control plane refuses it from now on, and no call is sent to its workloads.
Other workloads accept these certificates until they end:

IDENTITY                                       ENDS
spiffe://cards.example/ns/default/sa/payments  in 42m

  Next: isthmus ca rotate, which ends them when it is done and fails no request of others
`)
	if diff := cmp.Diff([]string{"revoke node rack1"}, f.acted); diff != "" {
		t.Error(diff)
	}
	f.revoked.Certificates = nil
	if got := run(t, "", "node", "revoke", "rack1", "--socket", socket, "--yes"); !strings.Contains(got.out,
		"holds no certificate") {
		t.Error(got.out)
	}
	expect(t, run(t, "", "node", "revoke", "x", "--yes", "--socket",
		serve(t, refuse(codes.NotFound, "there is no node"))), 65, "isthmus status lists the proxies")
	expect(t, run(t, "", "node", "revok", "rack1"), 64, `no command "revok" (revoke?)`)
	expect(t, run(t, "", "node"), 64, "--config is missing")
}
