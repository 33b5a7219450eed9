package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/spiffe"
)

// dialer holds how to reach the control plane: its Unix socket, or mutual TLS with an administrator certificate.
type dialer struct {
	socket      string
	address     string
	credentials string
	timeout     time.Duration
}

// socketVariable is the environment variable for the default socket. It only selects an address and grants nothing.
const socketVariable = "ISTHMUS_SOCKET"

// completionTimeout limits how long shell completion waits for names.
const completionTimeout = 2 * time.Second

func (d *dialer) flags(f *pflag.FlagSet, environment string) {
	f.StringVar(&d.socket, "socket", cmp.Or(environment, config.Default().Socket),
		"the control plane's Unix socket, on its own machine; "+socketVariable+" sets it too")
	f.StringVar(&d.address, "control", "", "host:port of a control plane elsewhere (mutual TLS, needs --credentials)")
	f.StringVar(&d.credentials, "credentials", "", "PEM `FILE` that isthmus admin cert wrote")
	f.DurationVar(&d.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
}

// connectionFlags formats the given connection flags for a suggested command.
func connectionFlags(f *pflag.FlagSet) string {
	var s string
	for _, name := range []string{"socket", "control", "credentials"} {
		if f.Changed(name) {
			s += " --" + name + " " + f.Lookup(name).Value.String()
		}
	}
	return s
}

// ask makes one call to the control plane.
func ask[Req, Resp any](ctx context.Context, a *app, method string, req *Req) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, a.dial.timeout)
	defer cancel()
	defer a.printWaiting(silence)()
	conn, err := a.dial.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := adminapi.Call[Req, Resp](ctx, conn, method, req)
	if err != nil {
		return nil, refusal(method, err)
	}
	return resp, nil
}

// silence is how long a command waits before it prints what it is waiting for.
const silence = 2 * time.Second

// printWaiting prints what a command is waiting for if it is still waiting after a while. Call the returned function to
// cancel that.
func (a *app) printWaiting(after time.Duration) func() {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
		case <-time.After(after):
			fmt.Fprintf(a.Err, "Waiting for the control plane at %s, until --timeout %s …\n",
				clean(cmp.Or(a.dial.address, a.dial.socket), oneLine), a.dial.timeout)
		}
	}()
	return func() { close(done); <-ended }
}

// connect dials first on its own, to distinguish a failed connection from a failed call.
func (d *dialer) connect(ctx context.Context) (*grpc.ClientConn, error) {
	// the kernel authenticates both ends of a Unix socket
	network, address, creds := "unix", d.socket, insecure.NewCredentials()
	if d.address != "" {
		var err error
		if creds, err = d.mutualTLS(); err != nil {
			return nil, err
		}
		network, address = "tcp", d.address
	} else if strings.HasPrefix(d.socket, "@") {
		return nil, &Error{
			Code: exitUsage,
			Text: fmt.Sprintf("--socket %s is an abstract name, at which any user of this host could listen in "+
				"place of the control plane", d.socket),
			Next: "name a file: " + config.Default().Socket,
		}
	}
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, d.unreachable(err)
	}
	dialed := make(chan net.Conn, 1)
	dialed <- raw
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-dialed:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}))
}

func (d *dialer) unreachable(err error) error {
	switch {
	case d.address != "":
		return &Error{
			Code: exitUnreachable, Text: fmt.Sprintf("no control plane answers at %s: %s", d.address, err),
			Next: "check the address, and that `isthmus control` runs there",
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &Error{Code: exitRefused, Text: "you may not open " + d.socket, Next: nextPermission}
	case errors.Is(err, fs.ErrNotExist):
		return &Error{
			Code: exitUnreachable, Text: "no control plane runs on this machine: there is no socket " + d.socket,
			Next: "start one (isthmus control --config-dir DIR --state FILE), name its --socket, or ask another machine's: --control HOST:15012 --credentials FILE",
		}
	}
	return &Error{
		Code: exitUnreachable, Text: fmt.Sprintf("nobody listens on %s any more: %s", d.socket, err),
		Next: "start the control plane: isthmus control --config-dir DIR --state FILE",
	}
}

// mutualTLS requires the server to be the control plane of the trust domain that issued the credentials.
func (d *dialer) mutualTLS() (credentials.TransportCredentials, error) {
	const next = "isthmus admin cert NAME --out FILE, on the control plane's machine"
	if d.credentials == "" {
		return nil, &Error{
			Code: exitUsage, Text: "--control needs --credentials FILE: there is no port without mutual TLS",
			Next: next,
		}
	}
	raw, err := os.ReadFile(d.credentials)
	if err != nil {
		return nil, badInput(next, "read credentials: %s", err)
	}
	svid, roots, err := parseCredentials(raw)
	if err != nil {
		return nil, badInput(next, "%s: %s", d.credentials, err)
	}
	td := svid.ID.TrustDomain()
	cfg := tlsconfig.MTLSClientConfig(svid, x509bundle.FromX509Authorities(td, roots),
		tlsconfig.AuthorizeID(spiffe.Control(td)))
	cfg.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(cfg), nil
}

// parseCredentials parses the output of `isthmus admin cert`: a key, the chain with the leaf first, and the mesh's
// roots, which are the self-signed certificates.
func parseCredentials(raw []byte) (*x509svid.SVID, []*x509.Certificate, error) {
	var key, chain []byte
	var roots []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			key = block.Bytes
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("read certificate: %w", err)
		}
		if cert.IsCA && cert.CheckSignatureFrom(cert) == nil {
			roots = append(roots, cert)
		} else {
			chain = append(chain, cert.Raw...)
		}
	}
	if key == nil || chain == nil || roots == nil {
		return nil, nil,
			errors.New("not an administrator's credentials: a private key, a certificate and a root are expected")
	}
	svid, err := x509svid.ParseRaw(chain, key)
	if err != nil {
		return nil, nil, err
	}
	return svid, roots, nil
}
