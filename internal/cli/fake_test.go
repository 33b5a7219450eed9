package cli

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
)

// now is the moment at which every test happens.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fake is a control plane that answers what a test gives it and remembers what it was asked.
type fake struct {
	adminapi.Server // nil: a call that no test expects panics
	asked           any
	err             error

	token    adminapi.TokenResponse
	status   adminapi.StatusResponse
	config   adminapi.ProxyConfigResponse
	invite   adminapi.PeerInviteResponse
	accept   adminapi.PeerAcceptResponse
	peers    adminapi.PeerListResponse
	probe    adminapi.PeerProbeResponse
	revoked  adminapi.RevokedNode
	manifest adminapi.PeerManifestResponse
	certs    adminapi.CertListResponse
	checks   adminapi.CheckResponse
	access   adminapi.AccessResponse
	has      adminapi.InventoryResponse
	ca       adminapi.CAStatusResponse
	sign     func(*adminapi.AdminCertRequest) (*agentapi.SignResponse, error)
	acted    []string

	admins        adminapi.AdminListResponse
	adminsRevoked adminapi.AdminRevokeResponse
	tokens        adminapi.TokenListResponse
	cancelled     adminapi.TokenCancelResponse
	events        adminapi.EventsResponse
	draft         adminapi.DraftResponse
	terms         adminapi.PeerTermsResponse
	offers        adminapi.CatalogueResponse
}

func answer[T any](f *fake, asked any, resp *T) (*T, error) {
	f.asked = asked
	if f.err != nil {
		return nil, f.err
	}
	return resp, nil
}

func (f *fake) CreateToken(_ context.Context, r *adminapi.TokenRequest) (*adminapi.TokenResponse, error) {
	return answer(f, *r, &f.token)
}

func (f *fake) Status(_ context.Context, r *adminapi.Empty) (*adminapi.StatusResponse, error) {
	return answer(f, *r, &f.status)
}

func (f *fake) ProxyConfig(_ context.Context, r *adminapi.ProxyConfigRequest) (*adminapi.ProxyConfigResponse, error) {
	return answer(f, *r, &f.config)
}

func (f *fake) PeerInvite(_ context.Context, r *adminapi.PeerInviteRequest) (*adminapi.PeerInviteResponse, error) {
	return answer(f, *r, &f.invite)
}

func (f *fake) PeerAccept(_ context.Context, r *adminapi.PeerAcceptRequest) (*adminapi.PeerAcceptResponse, error) {
	return answer(f, *r, &f.accept)
}

func (f *fake) PeerList(_ context.Context, r *adminapi.PeerRequest) (*adminapi.PeerListResponse, error) {
	return answer(f, *r, &f.peers)
}

func (f *fake) PeerProbe(_ context.Context, r *adminapi.PeerProbeRequest) (*adminapi.PeerProbeResponse, error) {
	return answer(f, *r, &f.probe)
}

func (f *fake) RevokeNode(_ context.Context, r *adminapi.NodeRequest) (*adminapi.RevokedNode, error) {
	f.acted = append(f.acted, "revoke node "+r.Node)
	return answer(f, *r, &f.revoked)
}

func (f *fake) Events(_ context.Context, r *adminapi.EventsRequest) (*adminapi.EventsResponse, error) {
	return answer(f, *r, &f.events)
}

func (f *fake) AdminList(_ context.Context, r *adminapi.Empty) (*adminapi.AdminListResponse, error) {
	return answer(f, *r, &f.admins)
}

func (f *fake) AdminRevoke(_ context.Context, r *adminapi.AdminRevokeRequest) (*adminapi.AdminRevokeResponse, error) {
	return answer(f, *r, &f.adminsRevoked)
}

func (f *fake) TokenList(_ context.Context, r *adminapi.Empty) (*adminapi.TokenListResponse, error) {
	return answer(f, *r, &f.tokens)
}

func (f *fake) TokenCancel(_ context.Context, r *adminapi.TokenCancelRequest) (*adminapi.TokenCancelResponse, error) {
	return answer(f, *r, &f.cancelled)
}

func (f *fake) PeerManifest(
	_ context.Context, r *adminapi.PeerManifestRequest,
) (*adminapi.PeerManifestResponse, error) {
	return answer(f, *r, &f.manifest)
}

func (f *fake) CertList(_ context.Context, r *adminapi.Empty) (*adminapi.CertListResponse, error) {
	return answer(f, *r, &f.certs)
}

func (f *fake) Check(_ context.Context, r *adminapi.Empty) (*adminapi.CheckResponse, error) {
	return answer(f, *r, &f.checks)
}

func (f *fake) Inventory(context.Context, *adminapi.Empty) (*adminapi.InventoryResponse, error) {
	return &f.has, f.err
}

func (f *fake) Access(_ context.Context, r *adminapi.Empty) (*adminapi.AccessResponse, error) {
	return answer(f, *r, &f.access)
}

func (f *fake) AdminCert(_ context.Context, r *adminapi.AdminCertRequest) (*agentapi.SignResponse, error) {
	f.asked = *r
	return f.sign(r)
}

func (f *fake) ImportDraft(_ context.Context, r *adminapi.ImportDraftRequest) (*adminapi.DraftResponse, error) {
	return answer(f, *r, &f.draft)
}

func (f *fake) ExportDraft(_ context.Context, r *adminapi.ExportDraftRequest) (*adminapi.DraftResponse, error) {
	return answer(f, *r, &f.draft)
}

func (f *fake) Catalogue(_ context.Context, r *adminapi.PeerRequest) (*adminapi.CatalogueResponse, error) {
	return answer(f, *r, &f.offers)
}

func (f *fake) PeerTerms(_ context.Context, r *adminapi.PeerTermsRequest) (*adminapi.PeerTermsResponse, error) {
	return answer(f, *r, &f.terms)
}

func (f *fake) PeerSuspend(_ context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	f.acted = append(f.acted, "suspend "+r.Peer)
	return answer(f, *r, &adminapi.Empty{})
}

func (f *fake) PeerResume(_ context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	f.acted = append(f.acted, "resume "+r.Peer)
	return answer(f, *r, &adminapi.Empty{})
}

func (f *fake) PeerRevoke(_ context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	f.acted = append(f.acted, "revoke "+r.Peer)
	return answer(f, *r, &adminapi.Empty{})
}

// serve lets a fake answer on a Unix socket and returns its path.
func serve(t *testing.T, f *fake) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, f, l, insecure.NewCredentials())
	return socket
}

func serveOn(t *testing.T, f *fake, l net.Listener, creds credentials.TransportCredentials) {
	t.Helper()
	srv := grpc.NewServer(grpc.Creds(creds))
	srv.RegisterService(&adminapi.Desc, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() { srv.Stop(); <-done })
}

// result is what a person saw of one command.
type result struct {
	code     int
	out, err string
}

// run runs a command line as a script would, with in on its standard input.
func run(t *testing.T, in string, args ...string) result {
	t.Helper()
	return runAs(t, World{In: strings.NewReader(in)}, Verbs{}, args...)
}

func runAs(t *testing.T, w World, v Verbs, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	if w.In == nil {
		w.In = strings.NewReader("")
	}
	w.Out, w.Err, w.Now = &out, &errs, func() time.Time { return now }
	code := Main(t.Context(), args, w, v)
	return result{code, out.String(), errs.String()}
}

func refuse(code codes.Code, text string) *fake { return &fake{err: status.Error(code, text)} }
