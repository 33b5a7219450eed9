package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

func TestExport(t *testing.T) {
	f := &fake{draft: adminapi.DraftResponse{
		YAML: "kind: FederatedExport\n", File: "export-money-pay-lab.yaml", Notes: []string{
			"Every caller of peer lab may send it every request: --callers, --methods and --paths narrow that.",
		},
		Objects: []adminapi.DraftedObject{
			{Kind: "FederatedExport", Namespace: "money", Name: "pay-lab", Stands: "pay.yaml:3"},
			{Kind: "AuthorizationPolicy", Namespace: "money", Name: "pay-lab", Stands: "pay.yaml:20", Same: true},
		},
		Findings: []finding.Finding{{
			Code: "ISM0330", Severity: finding.Warning,
			Object:  kind.Key{Kind: "FederatedExport", Namespace: "money", Name: "pay-lab"},
			Message: "no endpoint is ready", Remedy: "start it",
		}, {
			Code: "ISM0281", Severity: finding.Info,
			Object: kind.Workload("money", "pay"), Message: "it is away",
		}},
	}}
	got := run(t, "", "export", "money/pay", "--to", "lab", "--as", "pay", "--callers", "front/web,front/app",
		"--methods", "GET",
		"--paths", "/v1/*", "--socket", serve(t, f))
	expect(t, got, 0)
	want := adminapi.ExportDraftRequest{
		Service: "money/pay", Peer: "lab", As: "pay", Callers: []string{"front/web", "front/app"},
		Methods: []string{"GET"}, Paths: []string{"/v1/*"},
	}
	if diff := cmp.Diff(want, f.asked); diff != "" {
		t.Error(diff)
	}
	same(t, got.out, `# Written by isthmus export money/pay --to lab --as pay --callers front/web,front/app --methods GET --paths /v1/*
kind: FederatedExport
`)
	for _, part := range []string{
		"Every caller of peer lab may send it every request: --callers, --methods and\n--paths narrow that.\n",
		"FederatedExport money/pay-lab stands in pay.yaml:3 and says something else: this\nis to take its place.\n",
		"AuthorizationPolicy money/pay-lab is in force as it is (pay.yaml:20).\n", "It would have findings:\n",
		"ISM0330",
	} {
		if !strings.Contains(got.err, part) {
			t.Errorf("it lacks %q:\n%s", part, got.err)
		}
	}
	if strings.Contains(got.err, "ISM0281") {
		t.Errorf("what is no matter of the draft is said:\n%s", got.err)
	}
	expect(t, run(t, "", "export", "pay", "--socket", serve(t, f)), 64, "--to PEER is missing")
	got = run(t, "", "export", "pay", "--to", "lab", "-o", "json", "--socket", serve(t, f))
	expect(t, got, 0)
	if !strings.Contains(got.out, `"file": "export-money-pay-lab.yaml"`) ||
		!strings.Contains(got.out, `"stands": "pay.yaml:3"`) {
		t.Error(got.out)
	}
	expect(t, run(t, "", "export", "pay", "--to", "lba", "--socket",
		serve(t, refuse(codes.NotFound, `there is no peer "lba" (did you mean lab?): isthmus peer list shows them`))),
		65, "did you mean lab?")
	expect(t, run(t, "", "export", "pay", "--to", "lab", "--socket",
		serve(t, refuse(codes.FailedPrecondition, "this would be refused: ISM0065 error …"))), 1,
		"this would be refused: ISM0065")
}

// A file is written whole, said twice it changes nothing, and what somebody else wrote is left alone.
func TestImportIsWritten(t *testing.T) {
	f := &fake{draft: adminapi.DraftResponse{YAML: "kind: FederatedImport\n", File: "import-front-pay.yaml"}}
	dir, socket := t.TempDir(), serve(t, f)
	write := func(to string, callers string) result {
		t.Helper()
		return run(t, "", "import", "bank/money/pay", "--as", "front/pay", "--callers", callers, "--write", to,
			"--socket", socket)
	}
	file := filepath.Join(dir, "import-front-pay.yaml")
	got := write(dir, "web")
	expect(t, got, 0, "Written: "+file)
	if got.out != "" {
		t.Errorf("printed: %q", got.out)
	}
	if diff := cmp.Diff(adminapi.ImportDraftRequest{
		Peer: "bank", Name: "money/pay", As: "front/pay", Callers: []string{"web"},
	}, f.asked); diff != "" {
		t.Error(diff)
	}
	content := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	same(t, content(file),
		"# Written by isthmus import bank/money/pay --as front/pay --callers web\nkind: FederatedImport\n")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	expect(t, write(dir, "web"), 0, file+" says so already.")
	expect(t, write(file, "app"), 0, "Written: "+file)
	same(t, content(file),
		"# Written by isthmus import bank/money/pay --as front/pay --callers app\nkind: FederatedImport\n")

	other := filepath.Join(dir, "mine.yaml")
	if err := os.WriteFile(other, []byte("kind: FederatedImport # mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, write(other, "web"), 65, "was not written by this command and is left alone")
	same(t, content(other), "kind: FederatedImport # mine\n")
	expect(t, write(filepath.Join(dir, "nowhere", "x.yaml"), "web"), 65, "write the objects")
	f.draft.File = "../../outside.yaml"
	expect(t, write(dir, "web"), 0, "Written: "+filepath.Join(dir, "outside.yaml"))
	for _, wrong := range []string{"bank", "/pay", "bank/"} {
		expect(t, run(t, "", "import", wrong, "--socket", socket), 64, "is not PEER/NAME")
	}
}

func TestPeerSet(t *testing.T) {
	end := time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC)
	f := &fake{terms: adminapi.PeerTermsResponse{Peer: "bank", MaxBundleAge: 12 * time.Hour, ExpiresAt: end}}
	socket := serve(t, f)
	got := run(t, "", "peer", "set", "bank", "--max-bundle-age", "12h", "--expires-at", "2027-03-31T00:00:00Z",
		"--socket", socket)
	expect(t, got, 0)
	same(t, got.out,
		"Peer bank: everything is refused once its roots are older than 12h; the peering ends at 2027-03-31T00:00:00Z.\n")
	if diff := cmp.Diff(adminapi.PeerTermsRequest{Peer: "bank", MaxBundleAge: 12 * time.Hour, ExpiresAt: end},
		f.asked); diff != "" {
		t.Error(diff)
	}
	f.terms.ExpiresAt = time.Time{}
	expect(t, run(t, "", "peer", "set", "bank", "--never", "--socket", socket), 0, "")
	if diff := cmp.Diff(adminapi.PeerTermsRequest{Peer: "bank", Never: true}, f.asked); diff != "" {
		t.Error(diff)
	}
	for want, args := range map[string][]string{
		"say what to change":               nil,
		"exclude each other":               {"--never", "--expires-at", "2027-03-31T00:00:00Z"},
		`"tomorrow" is not a time such as`: {"--expires-at", "tomorrow"},
		`"soon" is not a time such as 7d`:  {"--max-bundle-age", "soon"},
	} {
		expect(t, run(t, "", append([]string{"peer", "set", "bank", "--socket", socket}, args...)...), 64, want)
	}
}

func TestWrapped(t *testing.T) {
	same(t, wrap("one two  three four", 9), "one two\nthree\nfour")
	same(t, wrap("averylongword and", 5), "averylongword\nand")
	same(t, wrap("", 5), "")
}
