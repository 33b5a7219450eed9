package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// expect compares the exit code and looks for words in the error text.
func expect(t *testing.T, got result, code int, words ...string) {
	t.Helper()
	if got.code != code {
		t.Errorf("exit code %d, want %d; it said:\n%s%s", got.code, code, got.out, got.err)
	}
	for _, w := range words {
		if !strings.Contains(got.err, w) {
			t.Errorf("the error lacks %q:\n%s", w, got.err)
		}
	}
}

func TestOutputFormats(t *testing.T) {
	socket := serve(t,
		&fake{checks: adminapi.CheckResponse{Checks: []adminapi.Check{{Name: "root", State: "ok", Detail: "fine"}}}})
	for format, want := range map[string]string{
		"table": "√ root: fine\n\n1 ok, 0 to watch, 0 broken\n",
		"json":  "{\n  \"checks\": [\n    {\n      \"name\": \"root\",\n      \"state\": \"ok\",\n      \"detail\": \"fine\"\n    }\n  ]\n}\n",
		"yaml":  "checks:\n- detail: fine\n  name: root\n  state: ok\n",
	} {
		got := run(t, "", "check", "--socket", socket, "-o", format)
		expect(t, got, 0)
		same(t, got.out, want)
	}
	expect(t, run(t, "", "check", "--socket", socket, "-o", "xml"), 64, `"xml" is none of table, wide, json, yaml`,
		"Next: isthmus check --help")
}

func TestCheckExitsWithFindings(t *testing.T) {
	socket := serve(t, &fake{checks: adminapi.CheckResponse{Checks: []adminapi.Check{{Name: "root", State: "failed"}}}})
	if got := run(t, "", "check", "--socket", socket); got.code != 79 || got.err != "" {
		t.Errorf("exit code %d, error %q; want 79 and no more words", got.code, got.err)
	}
	socket = serve(t, &fake{checks: adminapi.CheckResponse{Checks: []adminapi.Check{{Name: "root", State: "warning"}}}})
	expect(t, run(t, "", "check", "--socket", socket), 0)
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	expect(t, run(t, "", "status", "--socket", dir+"/none"), 69, "no control plane runs on this machine",
		"--config-dir DIR")
	dead := filepath.Join(dir, "dead")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, "", "status", "--socket", dead), 69, "nobody listens on "+dead)
}

// A person is told for whom the command waits.
func TestWaitingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		a := &app{World: World{Err: &out}, dial: dialer{address: "192.0.2.1:15012", timeout: 30 * time.Second}}
		for waited, want := range map[time.Duration]string{
			time.Second:     "",
			3 * time.Second: "Waiting for the control plane at 192.0.2.1:15012, until --timeout 30s …\n",
		} {
			out.Reset()
			done := a.printWaiting(silence)
			waittest.Advance(waited)
			done()
			same(t, out.String(), want)
		}
	})
}

func TestRefusals(t *testing.T) {
	for code, want := range map[codes.Code]struct {
		exit int
		next string
	}{
		codes.PermissionDenied:   {77, "run it as root"},
		codes.Unauthenticated:    {77, "run it as root"},
		codes.NotFound:           {65, "Next: isthmus status lists the proxies"},
		codes.InvalidArgument:    {65, "isthmus: no"},
		codes.FailedPrecondition: {1, "Next: isthmus"},
		codes.Internal:           {1, "Next: isthmus check"},
		codes.Unavailable:        {69, "control plane's log"},
		codes.DeadlineExceeded:   {69, "no answer from the control plane in time"},
		codes.Unimplemented:      {1, "does not know the call ProxyConfig"},
	} {
		t.Run(code.String(), func(t *testing.T) {
			expect(t, run(t, "", "proxy", "config", "x", "--socket", serve(t, refuse(code, "no"))), want.exit,
				want.next)
		})
	}
}

// Who is not believed is told so, whichever end it is that does not believe the other.
func TestBadCertificate(t *testing.T) {
	for _, said := range []string{
		"error reading server preface: remote error: tls: bad certificate",
		"authentication handshake failed: x509: certificate signed by unknown authority",
	} {
		expect(t, run(t, "", "proxy", "config", "x", "--socket", serve(t, refuse(codes.Unavailable, said))), 77, said,
			"Next: check that --credentials was made by this mesh")
	}
}

func TestAnswerThatNamesTheNextCommandItself(t *testing.T) {
	got := run(t, "", "peer", "invite", "x", "--socket",
		serve(t, refuse(codes.FailedPrecondition, "no gateway yet: start one with 'isthmus gateway'")))
	same(t, got.err, "isthmus: no gateway yet: start one with 'isthmus gateway'\n")
}

func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"stauts":                           `isthmus has no command "stauts" (status?)`,
		"peer":                             "",
		"peer forget":                      `isthmus peer has no command "forget"`,
		"status now":                       `isthmus status takes no argument, and got "now"`,
		"status --all":                     "unknown flag: --all",
		"proxy config":                     "takes one argument, a proxy's name, and got 0",
		"proxy config a --type ads":        `--type: "ads" is none of cds, eds, lds, ecds, rds, sds`,
		"cert list --expiring soon":        `"soon" is not a time such as 7d, 12h or 30m`,
		"token create":                     "--node is missing",
		"token create --node a":            "without one the node could host nothing",
		"token create --node a --role x":   `--role: "x" is neither node nor gateway`,
		"peer invite a --ttl 16m":          "--ttl: 16m0s is not between 1s and 15m",
		"peer invite a b":                  "takes one argument",
		"peer accept isthmus-peer-v1.abc":  "can be read by every user of this machine",
		"peer manifest --as a":             "--as and --known-as are both needed",
		"admin cert ada":                   "--out is missing",
		"render --proxy n1":                "-f DIR is missing: name the folder of YAML that describes the mesh",
		"render -f d":                      "--proxy NAME is missing",
		"validate":                         "-f DIR is missing: name the folder of YAML that describes the mesh",
		"node":                             "--config is missing",
		"control --log-level loud":         `--log-level: "loud" is none of`,
		"status --control h:1":             "--control needs --credentials FILE",
		"token create --node a --identity": "flag needs an argument: --identity",
	} {
		t.Run(line, func(t *testing.T) {
			code := 64
			if want == "" {
				code = 0
			}
			expect(t, run(t, "", strings.Fields(line)...), code, want)
		})
	}
	for _, id := range []string{"payments", "/a", "a/", "*/a", "a/b/c", "a/b*", ""} {
		expect(t, run(t, "", "token", "create", "--node", "n", "--identity", id), 64, "--identity: ")
	}
	for _, w := range []string{"payments", "a/*", "*/a", "a/b,app", "a/b,sa=*", ""} {
		expect(t, run(t, "", "token", "create", "--node", "n", "--workload", w), 64, "--workload: ")
	}
	for _, a := range []string{"10.0.0.1/24", "host", "10.0.0", ""} {
		expect(t, run(t, "", "token", "create", "--node", "n", "--identity", "a/b", "--address", a), 64, "--address: ")
	}
}

func TestTokenCreate(t *testing.T) {
	f := &fake{token: adminapi.TokenResponse{Token: "isthmus-join-v1.SECRET", Expires: now.Add(10 * 60e9)}}
	socket := serve(t, f)
	got := run(t, "", "token", "create", "--socket", socket, "--node", "rack1", "--identity", "default/payments",
		"--identity", "pay/*",
		"--workload", "shop/web-*,sa=front,app=web", "--address", "10.1.0.0/24", "--address", "fd00::1", "--ttl", "10m")
	expect(t, got, 0, "lets rack1 join, once, until 2026-11-22T12:10:00Z",
		"isthmus node --config FILE --token-file FILE")
	same(t, got.out, "isthmus-join-v1.SECRET\n")
	if strings.Contains(got.err, "SECRET") {
		t.Error("the token is on standard error, too")
	}
	want := adminapi.TokenRequest{
		Node: "rack1", Role: snapshot.RoleNode, Identities: []string{"default/payments", "pay/*"}, TTL: 600e9,
		Workloads: []grant.Workload{{
			Namespace: "shop", Name: "web-*", ServiceAccount: "front", Labels: map[string]string{"app": "web"},
		}},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::1/128")},
	}
	if diff := cmp.Diff(want, f.asked, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestTokenIntoFile(t *testing.T) {
	f := &fake{token: adminapi.TokenResponse{Token: "isthmus-join-v1.SECRET", Expires: now}}
	socket, file := serve(t, f), filepath.Join(t.TempDir(), "token")
	args := []string{
		"token", "create", "--socket", socket, "--node", "edge", "--role", "gateway", "--identity",
		"isthmus-system/gateway", "--out", file,
	}
	got := run(t, "", args...)
	expect(t, got, 0, "mode 0600", "isthmus gateway --config FILE --token-file "+file)
	if got.out != "" || strings.Contains(got.err, "SECRET") {
		t.Errorf("the token was printed:\n%s%s", got.out, got.err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != "isthmus-join-v1.SECRET\n" {
		t.Errorf("file holds %q, %v", raw, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, %v; want 0600", info.Mode(), err)
	}
	f.asked = nil
	expect(t, run(t, "", args...), 65, "exists and is not overwritten")
	if f.asked != nil {
		t.Error("a token was made although it could not be kept")
	}
}

func TestPeerInvite(t *testing.T) {
	f := &fake{invite: adminapi.PeerInviteResponse{
		Token: "TOKEN", Expires: now.Add(15 * 60e9), TrustDomain: "cards.example", Fingerprint: oneRoot,
		Addresses: []string{"192.0.2.1:15443"},
	}}
	got := run(t, "", "peer", "invite", "retail", "--socket", serve(t, f))
	expect(t, got, 0)
	same(t, got.out, "TOKEN\n")
	same(t, got.err, `Invitation for "retail", usable once, ends in 15m.

  this mesh    cards.example
  gateways     192.0.2.1:15443
  fingerprint  3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b

Hand the token that follows (it is shown only now) to the administrator of "retail"
over a channel that you trust. There: isthmus peer accept --token-file FILE
Afterwards compare both fingerprints with them, aloud: isthmus peer status retail

`)
}

func TestPeerAccept(t *testing.T) {
	f := &fake{accept: adminapi.PeerAcceptResponse{
		Peer: "cards", TrustDomain: "cards.example", KnownAs: "retail", OwnFingerprint: otherRoot,
		PeersFingerprint: oneRoot,
	}}
	socket, file := serve(t, f), filepath.Join(t.TempDir(), "invitation")
	if err := os.WriteFile(file, []byte("TOKEN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"-"}, {"--token-file", "-"}, {"--token-file", file}} {
		f.asked = nil
		got := run(t, " TOKEN\n", append([]string{"peer", "accept", "--socket", socket, "--name", "c"}, args...)...)
		expect(t, got, 0)
		if diff := cmp.Diff(adminapi.PeerAcceptRequest{Token: "TOKEN", Name: "c"}, f.asked); diff != "" {
			t.Error(diff)
		}
		same(t, got.out, `Peering with cards.example made. Here it is called "cards"; there this mesh is called "retail".

  this mesh  77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff
  the peer   3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b

Compare both with the peer's administrator, aloud: they see the same two (isthmus peer status).
If they differ: isthmus peer revoke cards
Nothing crosses yet: it takes a FederatedExport there and a FederatedImport here.
  Next: isthmus peer status cards, isthmus catalogue cards
`)
	}
	expect(t, run(t, "two words\n", "peer", "accept", "-"), 65, "holds no token")
	expect(t, run(t, "", "peer", "accept", "-"), 65, "holds no token")
	expect(t, runAs(t, World{Terminal: true}, Verbs{}, "peer", "accept"), 64, "the token is missing")
	expect(t, run(t, "", "peer", "accept", "--token-file", file+"x"), 65, "no such file")
	expect(t, run(t, "", "peer", "accept", "--token-file", file, "-"), 64, "not both")
}

func TestDangerousCommandsAsk(t *testing.T) {
	f := &fake{}
	socket := serve(t, f)
	terminal := func(in string) World { return World{In: strings.NewReader(in), Terminal: true} }
	expect(t, run(t, "cards\n", "peer", "revoke", "cards", "--socket", socket), 64, "There is nobody to confirm it.",
		"isthmus peer revoke cards --socket "+socket+" --yes")
	expect(t, runAs(t, terminal("y\n"), Verbs{}, "peer", "suspend", "cards", "--socket", socket), 1,
		`Type "cards" to continue`, "nothing was changed")
	if len(f.acted) != 0 {
		t.Fatalf("done without consent: %v", f.acted)
	}
	expect(t, runAs(t, terminal("cards\n"), Verbs{}, "peer", "suspend", "cards", "--socket", socket), 0)
	expect(t, run(t, "", "peer", "revoke", "cards", "--yes", "--socket", socket), 0)
	expect(t, run(t, "", "peer", "resume", "cards", "--socket", socket), 0)
	if diff := cmp.Diff([]string{"suspend cards", "revoke cards", "resume cards"}, f.acted); diff != "" {
		t.Error(diff)
	}
}

func TestPeerStatusOfNobody(t *testing.T) {
	expect(t, run(t, "", "peer", "status", "x", "--socket", serve(t, &fake{})), 65, `there is no peer "x"`,
		"isthmus peer list")
}

func TestControlSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(file,
		[]byte("configDir: /mesh\nstateFile: /state.db\nagentAddress: 10.0.0.1:15012\nlog: {format: json}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	var got config.Control
	v := Verbs{Control: func(_ context.Context, c config.Control, log *slog.Logger) error {
		got = c
		log.Info("began")
		return errors.New("listen on 10.0.0.9:15012: address in use")
	}}
	r := runAs(t, World{}, v, "control", "--config", file, "--agent-address", "10.0.0.9:15012")
	expect(t, r, 1, "isthmus: listen on 10.0.0.9:15012: address in use", `"msg":"began"`)
	if got.AgentAddress != "10.0.0.9:15012" || got.ConfigDir != "/mesh" || got.KeyFile != "/state.db.key" ||
		got.PeeringAddress != ":15013" {
		t.Errorf("settings: %+v", got)
	}
	expect(t, runAs(t, World{}, v, "control"), 65, "configDir is missing", "stateFile is missing")
	expect(t, runAs(t, World{}, v, "control", "--config", file+"x"), 65, "read settings")
}

func TestAgentVerbs(t *testing.T) {
	var got Agent
	v := Verbs{Agent: func(_ context.Context, a Agent, _ *slog.Logger) error { got = a; return nil }}
	expect(t, runAs(t, World{}, v, "gateway", "--config", "g.yaml", "--token-file", "-"), 0)
	if got.Role != snapshot.RoleGateway || got.Settings != "g.yaml" || got.TokenFile != "/dev/stdin" {
		t.Errorf("agent: %+v", got)
	}
}

func TestRender(t *testing.T) {
	fs := []finding.Finding{{Code: "ISM0001", Severity: finding.Warning, Message: "mind."}}
	v := Verbs{Render: func(_ context.Context, dir string, nodes []string, proxy string) ([]adminapi.ProxyResource,
		[]finding.Finding, error,
	) {
		if dir != "mesh" || proxy != "n1" || !cmp.Equal(nodes, []string{"a.yaml", "b.yaml"}) {
			return nil, nil, errors.New("wrong arguments")
		}
		return []adminapi.ProxyResource{{Type: "CDS", Name: "c"}, {Type: "RDS", Name: "r", Bytes: 7}}, fs, nil
	}}
	args := []string{
		"render", "-f", "mesh", "--proxy", "n1", "--node-config", "a.yaml", "--node-config", "b.yaml",
		"--type", "rds",
	}
	got := runAs(t, World{}, v, args...)
	expect(t, got, 0, "ISM0001 warning\n  mind.")
	same(t, got.out, "TYPE  NAME  VERSION  BYTES  FROM\nRDS   r     -        7      -\n\nWhole: -o yaml\n")
	fs[0].Severity = finding.Error
	expect(t, runAs(t, World{}, v, args...), 79, "ISM0001 error\n  mind.")
}

func TestValidate(t *testing.T) {
	var fs []finding.Finding
	v := Verbs{Render: func(_ context.Context, dir string, _ []string, proxy string) ([]adminapi.ProxyResource,
		[]finding.Finding, error,
	) {
		if dir != "mesh" || proxy != "" {
			return nil, nil, errors.New("wrong arguments")
		}
		return nil, fs, nil
	}}
	got := runAs(t, World{}, v, "validate", "-f", "mesh")
	expect(t, got, 0)
	const unchecked = "Selectors were not checked. Next: --node-config with each node's settings\n"
	same(t, got.out, "Nothing to fix.\n"+unchecked)
	same(t, runAs(t, World{}, v, "validate", "-f", "mesh", "--node-config", "n.yaml").out, "Nothing to fix.\n")
	same(t, runAs(t, World{}, v, "validate", "-f", "mesh", "-o", "json").out, "{\n  \"findings\": []\n}\n")
	fs = []finding.Finding{{Code: "ISM0001", Severity: finding.Error, Message: "mind."}}
	got = runAs(t, World{}, v, "validate", "-f", "mesh")
	expect(t, got, 79)
	same(t, got.out, "ISM0001 error\n  mind.\n"+unchecked)
	fs[0].Severity = finding.Warning
	expect(t, runAs(t, World{}, v, "validate", "-f", "mesh"), 0)
	expect(t, runAs(t, World{}, v, "validate", "-f", "none"), 65, "wrong arguments", "Next: isthmus validate --help")
}

func TestDemoIsAdded(t *testing.T) {
	v := Verbs{Demo: func() *cobra.Command {
		return &cobra.Command{Use: "demo", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), "shown\n")
			return err
		}}
	}}
	same(t, runAs(t, World{}, v, "demo").out, "shown\n")
	expect(t, runAs(t, World{}, v, "demo", "x"), 64, `unknown command "x"`, "Next: isthmus demo --help")
}

func TestErrorsDoNotMoveTheCursor(t *testing.T) {
	got := run(t, "", "status", "--socket", serve(t, refuse(codes.Internal, "a\x1b[2Jb\nc")))
	if !strings.HasPrefix(got.err, "isthmus: a?[2Jb\nc\n") {
		t.Errorf("error %q", got.err)
	}
}
