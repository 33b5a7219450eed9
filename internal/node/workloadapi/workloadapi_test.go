package workloadapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	client "github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/waittest"
)

func within(t *testing.T, most time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), most)
	t.Cleanup(cancel)
	return ctx
}

func withHeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

// watcher hands on what go-spiffe's client hears.
type watcher struct {
	updates chan *client.X509Context
	errs    chan error
}

func (w watcher) OnX509ContextUpdate(c *client.X509Context) { w.updates <- c }

func (w watcher) OnX509ContextWatchError(err error) {
	select {
	case w.errs <- err:
	default:
	}
}

func (w watcher) next(t *testing.T, what string) (serial int64, roots []*x509.Certificate) {
	t.Helper()
	select {
	case c := <-w.updates:
		svid := c.DefaultSVID()
		if svid.ID.String() != "spiffe://cards.example/ns/default/sa/pay" || len(c.SVIDs) != 1 || c.Bundles.Len() != 1 {
			t.Fatalf("%s: %d SVIDs, the first of %s, %d bundles", what, len(c.SVIDs), svid.ID, c.Bundles.Len())
		}
		b, err := c.Bundles.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
		must(t, err)
		return svid.Certificates[0].SerialNumber.Int64(), b.X509Authorities()
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: nothing came", what)
	}
	panic("unreachable")
}

func TestRenewalsAndRootsAreSentToEveryStream(t *testing.T) {
	w := newWorld(t, nil)
	close(w.joined)
	old, next := newAuthority(t), newAuthority(t)
	ctx := within(t, 20*time.Second)
	c, err := client.New(ctx, client.WithAddr("unix://"+w.path))
	must(t, err)
	defer c.Close()
	heard := watcher{updates: make(chan *client.X509Context, 10), errs: make(chan error, 1)}
	ended := make(chan error, 1)
	watching, cancel := context.WithCancel(ctx)
	go func() { ended <- c.WatchX509Context(watching, heard) }()
	defer func() { cancel(); <-ended }()

	w.store.change(func(h *sds.IdentityState) {
		h.SVID, h.Roots = old.issue(7, time.Hour),
			[]*x509.Certificate{old.root}
	})
	if serial, roots := heard.next(t, "the first"); serial != 7 || len(roots) != 1 || !roots[0].Equal(old.root) {
		t.Errorf("the first: serial %d, %d roots", serial, len(roots))
	}
	w.store.change(func(h *sds.IdentityState) { h.Roots = []*x509.Certificate{old.root, next.root} })
	if serial, roots := heard.next(t, "a second root"); serial != 7 || len(roots) != 2 || !roots[1].Equal(next.root) {
		t.Errorf("a second root: serial %d, %d roots", serial, len(roots))
	}
	w.store.change(func(h *sds.IdentityState) {}) // somebody else's certificate changed
	select {
	case <-heard.updates:
		t.Error("an update without a change")
	case <-time.After(100 * time.Millisecond):
	}
	w.store.change(func(h *sds.IdentityState) { h.SVID = next.issue(8, time.Hour) })
	if serial, roots := heard.next(t, "a renewal"); serial != 8 || len(roots) != 2 {
		t.Errorf("a renewal: serial %d, %d roots", serial, len(roots))
	}
	select {
	case err := <-heard.errs:
		t.Errorf("watching: %v", err)
	default:
	}

	set, err := c.FetchX509Bundles(ctx)
	must(t, err)
	if b := set.Bundles(); len(b) != 1 || b[0].TrustDomain().Name() != "cards.example" ||
		len(b[0].X509Authorities()) != 2 {
		t.Errorf("bundles: %v", b)
	}
}

func TestWhoHasNoCertificateYetIsToldSo(t *testing.T) {
	w := newWorld(t, nil)
	api := workload.NewSpiffeWorkloadAPIClient(w.dial(t))
	fetch := func() error {
		stream, err := api.FetchX509SVID(withHeader(within(t, 15*time.Second)), &workload.X509SVIDRequest{})
		must(t, err)
		_, err = stream.Recv()
		return err
	}
	if err := fetch(); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "the agent has not joined the mesh yet") {
		t.Errorf("before joining: %v", err)
	}
	close(w.joined)
	a := newAuthority(t)
	w.store.change(func(h *sds.IdentityState) {
		h.SVID, h.Roots = a.issue(7, -time.Second),
			[]*x509.Certificate{a.root}
	})
	if err := fetch(); status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "no valid certificate for spiffe://cards.example/ns/default/sa/pay") {
		t.Errorf("with an expired certificate: %v", err)
	}
}

func TestCallsWithoutTheHeaderAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	close(w.joined)
	a := newAuthority(t)
	w.store.change(func(h *sds.IdentityState) { h.SVID, h.Roots = a.issue(7, time.Hour), []*x509.Certificate{a.root} })
	api := workload.NewSpiffeWorkloadAPIClient(w.dial(t))
	for name, pairs := range map[string][]string{
		"no header": nil, "another value": {"workload.spiffe.io", "True"}, "empty": {"workload.spiffe.io", ""},
		"two values": {"workload.spiffe.io", "true", "workload.spiffe.io", "false"},
	} {
		ctx := metadata.NewOutgoingContext(within(t, 5*time.Second), metadata.Pairs(pairs...))
		svid, err := api.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
		must(t, err)
		if _, err := svid.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, X.509-SVID: %v", name, err)
		}
		bundles, err := api.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
		must(t, err)
		if _, err := bundles.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, bundles: %v", name, err)
		}
		if _, err := api.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s, JWT-SVID: %v", name, err)
		}
	}
	ctx := withHeader(within(t, 5*time.Second))
	if _,
		err := api.FetchJWTSVID(ctx,
		&workload.JWTSVIDRequest{Audience: []string{"x"}}); status.Code(err) != codes.Unimplemented {
		t.Errorf("JWT-SVID: %v", err)
	}
	if _, err := api.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("validation of a JWT-SVID: %v", err)
	}
	jwt, err := api.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})
	must(t, err)
	if _, err := jwt.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("JWT bundles: %v", err)
	}
	svid, err := api.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	must(t, err)
	if _, err := svid.Recv(); err != nil {
		t.Errorf("with the header: %v", err)
	}
}

func TestAnotherUserIsRefused(t *testing.T) {
	w := newWorld(t, func(w *Workload) { w.Users = []uint32{uint32(os.Geteuid()) + 1} })
	close(w.joined)
	a := newAuthority(t)
	w.store.change(func(h *sds.IdentityState) { h.SVID, h.Roots = a.issue(7, time.Hour), []*x509.Certificate{a.root} })
	api := workload.NewSpiffeWorkloadAPIClient(w.dial(t))
	for range 3 {
		stream, err := api.FetchX509SVID(withHeader(within(t, 5*time.Second)), &workload.X509SVIDRequest{})
		must(t, err)
		if m, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v, %v", m, err)
		}
	}
	if got := w.log.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, `msg="Workload API refused" workload=default/pay-1 reason="user `) {
		t.Errorf("the log says %q", got)
	}
}

func TestAVanishedNamespaceServesNobody(t *testing.T) {
	w := newWorld(t, func(w *Workload) { w.Netns = "/run/netns/isthmus-t-vanished" })
	close(w.joined)
	stream, err := workload.NewSpiffeWorkloadAPIClient(w.dial(t)).FetchX509SVID(withHeader(within(t, 5*time.Second)),
		&workload.X509SVIDRequest{})
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

func TestSocketsComeAndGo(t *testing.T) {
	w := newWorld(t, nil)
	st, err := os.Stat(w.path)
	must(t, err)
	if st.Mode() != os.ModeSocket|0o666 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := w.server.Listen(); err == nil ||
		!strings.Contains(err.Error(), "something serves at "+w.path+" already") {
		t.Errorf("a second server: %v", err)
	}
	w.stop()
	if _, err := os.Lstat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop: %v", err)
	}
	// What an agent leaves that crashes: its socket, and that of a workload that has gone since.
	gone := filepath.Join(filepath.Dir(w.path), "gone-1.sock")
	for _, path := range []string{w.path, gone} {
		l, err := listenAt(path)
		must(t, err)
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	must(t, w.server.Listen())
	defer w.server.Close()
	if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a workload that has gone: %v", err)
	}
}

func TestSocketsTakeNobodysPlace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("precious"), 0o600))
	if _, err := listenAt(file); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	live := filepath.Join(dir, "live")
	other, err := net.Listen("unix", live)
	must(t, err)
	defer other.Close()
	if _, err := listenAt(live); err == nil || !strings.Contains(err.Error(), "something serves at "+live) {
		t.Errorf("over another's socket: %v", err)
	}
	open := filepath.Join(dir, "open")
	must(t, os.Mkdir(open, 0o700))
	must(t, os.Chmod(open, 0o777))
	for _, path := range []string{filepath.Join(open, "a.sock"), filepath.Join(open, "below", "a.sock")} {
		if _, err := listenAt(path); err == nil || !strings.Contains(err.Error(), open+" can be written by others") {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(t, os.Symlink(open, filepath.Join(dir, "link")))
	if _, err := listenAt(filepath.Join(dir, "link", "a.sock")); err == nil ||
		!strings.Contains(err.Error(), open+" can be written by others") {
		t.Errorf("through a link: %v", err)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	close(w.joined)
	a := newAuthority(t)
	w.store.change(func(h *sds.IdentityState) { h.SVID, h.Roots = a.issue(7, time.Hour), []*x509.Certificate{a.root} })
	ctx := withHeader(within(t, 20*time.Second))
	const connections, each = 20, 30 // 600 streams; a connection may have 32
	served, refused := 0, 0
	for range connections {
		api := workload.NewSpiffeWorkloadAPIClient(w.dial(t))
		for range each {
			stream, err := api.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
			must(t, err)
			switch _, err := stream.Recv(); status.Code(err) {
			case codes.OK:
				served++
			case codes.ResourceExhausted:
				refused++
			default:
				t.Fatal(err)
			}
		}
	}
	if served != 512 || refused != 88 {
		t.Errorf("%d served, %d refused", served, refused)
	}
}

// Strangers are closed soon and held in small numbers: they take no place of the workload's.
func TestStrangersAreBounded(t *testing.T) {
	w := newWorld(t, func(w *Workload) { w.Users = []uint32{uint32(os.Geteuid()) + 1} })
	served := w.server.served[0]
	began := time.Now()
	const flood = 300
	for range flood {
		c, err := net.Dial("unix", w.path)
		must(t, err)
		defer c.Close()
	}
	waittest.Until(t, "most are closed at once", func() bool { return served.refused.Load() >= flood-maxRefused })
	if s, c := served.strangers.Load(), served.callers.Load(); s > 8 || c != 0 {
		t.Errorf("%d strangers and %d of the workload are held", s, c)
	}
	if n := strings.Count(w.log.String(), "\n"); n < 1 || n > 60 {
		t.Errorf("%d lines in the log", n)
	}
	const most = 4 * time.Second // gRPC itself would wait for 5
	waittest.Within(t, most-time.Since(began), "no stranger is held", func() error {
		if n := served.strangers.Load(); n > 0 {
			return fmt.Errorf("%d strangers are still held", n)
		}
		return nil
	})
}

func TestConnectionsAreBoundedAndGivenBack(t *testing.T) {
	w := newWorld(t, nil)
	served := w.server.served[0]
	var open []net.Conn
	for range 300 {
		c, err := net.Dial("unix", w.path)
		must(t, err)
		defer c.Close()
		open = append(open, c)
	}
	waittest.Until(t, "too many", func() bool { return served.callers.Load() == 256 && served.refused.Load() == 44 })
	for _, c := range open {
		c.Close()
	}
	waittest.Until(t, "all closed", func() bool { return served.callers.Load() == 0 })
}
