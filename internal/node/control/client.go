// Package control keeps an agent connected to its control plane: it joins with a token, renews its certificate,
// reconnects, and holds the standing stream.
package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

const (
	callTimeout = 10 * time.Second
	// firstTimeout limits the first attempt to join, since a person is waiting for the result.
	firstTimeout = 3 * time.Second
	// lookAgain is how often the clock is read while waiting for the certificate to be due, since it may be set.
	lookAgain = time.Second
)

// Config of a Client.
type Config struct {
	Log       *slog.Logger
	Node      string        // the agent's own name, which the token must be for
	Role      snapshot.Role // likewise
	Addresses []string      // of the control plane; empty: those in the token
	TokenFile string
	// IdentityFile keeps the node's key, certificate and roots.
	IdentityFile string
	// Report returns what to tell the control plane now; Changed signals that it may have changed.
	Report  func() agentapi.Report
	Changed <-chan struct{}
	// Instructions arrived.
	Instructions func(*agentapi.Instructions)
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Client is one agent's connection.
type Client struct {
	cfg         Config
	svid        atomic.Pointer[identity.SVID]
	conn        atomic.Pointer[grpc.ClientConn] // for the agent itself
	envoys      atomic.Pointer[grpc.ClientConn] // for the streams of its Envoys
	joined      chan struct{}                   // closed once there is an identity and a connection
	connected   atomic.Bool
	unsaved     atomic.Bool // svid is not in its file; unsavable: that was logged
	unsavable   atomic.Bool
	signing     identity.Signing
	mu          sync.Mutex          // guards told, and every change of svid
	latestRoots []*x509.Certificate // the mesh's roots as the control plane last sent them; nil before that
}

// New makes a client that is not connected yet.
func New(cfg Config) *Client {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Client{cfg: cfg, joined: make(chan struct{})}
}

// Joined is closed once the agent has its identity.
func (c *Client) Joined() <-chan struct{} { return c.joined }

// Identity returns the identity of the node, nil before it joined.
func (c *Client) Identity() *identity.SVID { return c.svid.Load() }

// Connected reports whether the control plane answers on the standing stream.
func (c *Client) Connected() bool { return c.connected.Load() }

// EnvoyConn returns the present connection for Envoys' streams, nil before the agent has joined. It is replaced along
// with the node's certificate. A connection carries a limited number of streams: on a separate one, Envoys cannot block
// the agent's own.
func (c *Client) EnvoyConn() *grpc.ClientConn { return c.envoys.Load() }

// Run joins, then maintains the stream and the certificate until ctx is done. It returns early only when the control
// plane refuses the agent for good.
func (c *Client) Run(ctx context.Context) error {
	svid, err := c.join(ctx)
	if err != nil {
		return err
	}
	c.svid.Store(svid)
	for _, of := range c.conns() {
		conn, err := c.dial(c.cfg.Addresses, identity.ControlTLS(c.svid.Load))
		if err != nil {
			return err
		}
		of.Store(conn)
		defer func() { of.Load().Close() }()
	}
	close(c.joined)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.runStream(ctx) })
	g.Go(func() error { return c.renew(ctx) })
	return g.Wait()
}

// join returns the saved identity, or a new one for the token.
func (c *Client) join(ctx context.Context) (*identity.SVID, error) {
	svid, err := identity.Load(c.cfg.IdentityFile)
	if err == nil {
		if name, _ := spiffe.NodeName(svid.ID); name != c.cfg.Node {
			return nil,
				fmt.Errorf("%s is the identity of node %q, and the settings are those of %q: correct name, or give each agent a stateDir of its own",
					c.cfg.IdentityFile, name, c.cfg.Node)
		}
	}
	switch {
	case err == nil && !svid.Expired(c.cfg.Now()):
		if len(c.cfg.Addresses) == 0 {
			return svid, c.findAddresses()
		}
		return svid, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case c.cfg.TokenFile == "" && svid != nil:
		return nil,
			fmt.Errorf("the node certificate expired at %s: make a new token with `isthmus token create --node %s` and name its file in control.tokenFile",
				svid.Leaf().NotAfter.UTC().Format(time.RFC3339), c.cfg.Node)
	case c.cfg.TokenFile == "":
		return nil,
			fmt.Errorf("this node has not joined yet: make a token with `isthmus token create --node %s` and name its file in control.tokenFile", c.cfg.Node)
	}
	return c.attest(ctx)
}

// findAddresses takes the control plane's addresses from the token, or from what was saved of the token used to join,
// whose file may be gone.
func (c *Client) findAddresses() error {
	if c.cfg.TokenFile != "" {
		if token, err := identity.LoadToken(c.cfg.TokenFile); err == nil {
			c.cfg.Addresses = token.Addresses
			return nil
		}
	}
	kept, err := os.ReadFile(c.addressesFile())
	if c.cfg.Addresses = strings.Fields(string(kept)); err != nil || len(c.cfg.Addresses) == 0 {
		return errors.New("control.addresses is empty: write where the control plane listens, for example 10.0.0.1:15012")
	}
	return nil
}

func (c *Client) addressesFile() string {
	return filepath.Join(filepath.Dir(c.cfg.IdentityFile), "control-addresses")
}

// attest exchanges the token for an identity, retrying until the control plane answers.
func (c *Client) attest(ctx context.Context) (*identity.SVID, error) {
	token, err := identity.LoadToken(c.cfg.TokenFile)
	if err != nil {
		return nil, err
	}
	if token.Node != "" && (token.Node != c.cfg.Node || token.Role != c.cfg.Role) { // before it is used up
		return nil, fmt.Errorf("the join token in %s is for %s %q, the settings are those of %s %q: correct name, or "+
			"make a token with `isthmus token create --node %s`",
			c.cfg.TokenFile, token.Role, token.Node, c.cfg.Role, c.cfg.Node, c.cfg.Node)
	}
	if len(c.cfg.Addresses) == 0 {
		c.cfg.Addresses = token.Addresses
		if err := durable.WriteFile(c.addressesFile(), []byte(strings.Join(token.Addresses, "\n")+"\n")); err != nil {
			return nil, fmt.Errorf("keep the control plane's addresses: %w", err) // before the token is used up
		}
	}
	c.cfg.Log.Info("joining the mesh", "control", c.cfg.Addresses)
	conn, err := c.dial(c.cfg.Addresses, identity.AttestTLS(token))
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	wait := retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	timeout := firstTimeout
	for {
		svid, err := c.attestOnce(ctx, conn, token, timeout)
		timeout = callTimeout
		if err == nil {
			return svid, nil
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition,
			codes.NotFound:
			return nil,
				fmt.Errorf("the control plane refuses to let node %s join: %s; make a new token with `isthmus token create --node %s`",
					c.cfg.Node, status.Convert(err).Message(), c.cfg.Node)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.cfg.Log.Warn("joining failed, trying again", "control", c.cfg.Addresses, "error", connectError(err))
		if err := retry.Sleep(ctx, wait.Next()); err != nil {
			return nil, err
		}
	}
}

func (c *Client) attestOnce(
	ctx context.Context, conn *grpc.ClientConn, token identity.Token, timeout time.Duration,
) (*identity.SVID, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	key, csr, err := identity.NewRequest()
	if err != nil {
		return nil, err
	}
	resp, err := agentapi.Client{Conn: conn}.Attest(ctx, &agentapi.AttestRequest{Token: token.Secret(), CSR: csr})
	if err != nil {
		return nil, err
	}
	if resp.Node != c.cfg.Node || resp.Role != c.cfg.Role {
		return nil, status.Errorf(codes.FailedPrecondition, "the token is for %s %q, the configuration is of %s %q",
			resp.Role, resp.Node, c.cfg.Role, c.cfg.Node)
	}
	svid, err := identity.NewSVID(key, resp.Chain, resp.Roots, c.cfg.Now())
	if err != nil {
		return nil, err
	}
	if name, ok := spiffe.NodeName(svid.ID); !ok || name != c.cfg.Node {
		return nil, status.Errorf(codes.FailedPrecondition, "it sent the certificate of %s", svid.ID)
	}
	c.cfg.Log.Info("joined", "identity", svid.ID.String(), "expires", svid.Leaf().NotAfter)
	return svid, identity.Save(c.cfg.IdentityFile, svid)
}

// Sign asks for the certificate of a workload of this node.
func (c *Client) Sign(ctx context.Context, namespace, serviceAccount string) (*identity.SVID, error) {
	conn := c.conn.Load()
	if conn == nil {
		return nil, errors.New("not joined yet")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, csr, err := identity.NewRequest()
	if err != nil {
		return nil, err
	}
	resp, err := agentapi.Client{Conn: conn}.Sign(ctx,
		&agentapi.SignRequest{Namespace: namespace, ServiceAccount: serviceAccount, CSR: csr})
	if err != nil {
		return nil, err
	}
	return identity.NewSVID(key, resp.Chain, resp.Roots, c.cfg.Now())
}

// Trials opens the stream of trials once the agent has joined. A renewed certificate ends it, like every open stream.
func (c *Client) Trials(ctx context.Context) (rpc.Stream[agentapi.Verdict, agentapi.Trial], error) {
	return agentapi.Client{Conn: c.conn.Load()}.Try(ctx)
}

// renew renews the node's certificate in time, and the connection with it: no connection outlives the certificate that
// opened it.
func (c *Client) renew(ctx context.Context) error {
	wait := retry.Backoff{Min: 500 * time.Millisecond, Max: 30 * time.Second}
	for {
		jitter := rand.Float64()*2 - 1
		if err := c.waitUntilDue(ctx, jitter); err != nil {
			return err
		}
		svid, err := c.renewed(ctx)
		if err == nil {
			err = c.adopt(ctx, svid)
		}
		if err == nil {
			wait.Reset()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.cfg.Log.Warn("node certificate not renewed, trying again",
			"expires", c.svid.Load().Leaf().NotAfter, "error", err)
		if err := retry.Sleep(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

// waitUntilDue waits until the node's certificate is due.
func (c *Client) waitUntilDue(ctx context.Context, jitter float64) error {
	for {
		c.saveAgain()
		changed := c.signing.Changed()
		d := c.signing.Wait(c.svid.Load(), jitter, c.cfg.Now())
		if d == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(min(d, lookAgain)):
		}
	}
}

func (c *Client) renewed(ctx context.Context) (*identity.SVID, error) {
	old := c.svid.Load()
	if !old.Expired(c.cfg.Now()) {
		svid, err := c.Sign(ctx, "", "")
		if err == nil && svid.ID != old.ID {
			return nil, fmt.Errorf("asked to renew %s, got a certificate of %s", old.ID, svid.ID)
		}
		return svid, err
	}
	if c.cfg.TokenFile == "" {
		return nil,
			fmt.Errorf("the node certificate has expired: make a new token with `isthmus token create --node %s`, name its file in control.tokenFile and start the agent again", c.cfg.Node)
	}
	return c.attest(ctx)
}

// adopt saves the new identity and switches to a connection opened with it.
func (c *Client) adopt(ctx context.Context, svid *identity.SVID) error {
	c.setCertificate(svid)
	for _, of := range c.conns() {
		conn, err := c.dial(c.cfg.Addresses, identity.ControlTLS(c.svid.Load))
		if err != nil {
			return err
		}
		waitReady(ctx, conn, 5*time.Second)
		if err := of.Swap(conn).Close(); err != nil {
			return err
		}
	}
	c.cfg.Log.Info("node certificate renewed", "expires", svid.Leaf().NotAfter)
	return nil
}

// conns returns the agent's connections to the control plane.
func (c *Client) conns() []*atomic.Pointer[grpc.ClientConn] {
	return []*atomic.Pointer[grpc.ClientConn]{&c.conn, &c.envoys}
}
