package control

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/rpc"
)

const (
	openTimeout = 10 * time.Second      // to say so in the log when the control plane is away
	silence     = 2 * time.Second       // before the log says who is waited for
	coalesce    = 20 * time.Millisecond // between two reports
	sayAgain    = time.Minute           // while the control plane stays away for one reason
	countsEvery = time.Second           // between looks at counters, which change without notice
)

var errNoAnswer = errors.New("the control plane does not answer")

// runStream holds the standing stream, and opens it again whenever it ends.
func (c *Client) runStream(ctx context.Context) error {
	wait := retry.Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second}
	var said outage
	for {
		conn := c.conn.Load()
		waiting := func() {}
		if said == (outage{}) {
			waiting = c.logWaiting(silence)
		}
		err := c.sync(ctx, conn, func() { waiting(); wait.Reset(); said = outage{} })
		waiting()
		c.connected.Store(false)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case conn != c.conn.Load():
			continue // a renewed certificate, a new connection
		}
		c.logOutage(&said, err)
		if err := retry.Sleep(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

// logWaiting logs what the agent waits for if it still waits after a while. Calling the returned function, any number
// of times, cancels that.
func (c *Client) logWaiting(after time.Duration) func() {
	t := time.AfterFunc(after, func() {
		c.cfg.Log.Warn("the control plane has not answered yet, still waiting", "control", c.cfg.Addresses)
	})
	return func() { t.Stop() }
}

// outage is what was last logged about the end of the stream.
type outage struct {
	text string
	at   time.Time
}

// logOutage logs why there is no stream, once a minute while the reason stays the same. A control plane that refuses
// the agent is reachable, so that is an error of its own.
func (c *Client) logOutage(said *outage, err error) {
	now, text := c.cfg.Now(), statusMessage(err)
	if text == said.text && now.Sub(said.at) < sayAgain && !now.Before(said.at) {
		return
	}
	*said = outage{text, now}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unauthenticated:
		c.cfg.Log.Error("the control plane refuses this agent, trying again",
			"role", string(c.cfg.Role), "control", c.cfg.Addresses, "reason", text)
	default:
		c.cfg.Log.Warn("control plane unreachable, trying again", "control", c.cfg.Addresses, "error", text)
	}
}

// statusMessage returns the message of a call's error without gRPC's prefix.
func statusMessage(err error) string {
	text := status.Convert(err).Message()
	if _, dialing, ok := strings.Cut(text, "Error while dialing: "); ok {
		return strings.TrimSuffix(dialing, `"`)
	}
	return text
}

// connectError is statusMessage for a control plane that has never answered: it may be elsewhere, or behind a firewall.
func connectError(err error) string {
	const reach = ": does a control plane run there, and may this host reach that port?"
	text := statusMessage(err)
	switch {
	case strings.Contains(text, "expired or is not yet valid"):
		return text + ": compare the clocks of this host and of the control plane's"
	case status.Code(err) == codes.DeadlineExceeded:
		return "no answer in time" + reach
	case strings.Contains(text, "dial "):
		return text + reach
	}
	return text
}

func (c *Client) sync(ctx context.Context, conn *grpc.ClientConn, answered func()) error {
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	opening := time.AfterFunc(openTimeout, func() { cancel(errNoAnswer) })
	defer opening.Stop()
	stream, err := agentapi.Client{Conn: conn}.Sync(ctx)
	if err != nil {
		return err
	}
	opening.Stop() // a control plane without configuration has nothing to send yet
	g.Go(func() error {
		for {
			in, err := stream.Recv()
			if err != nil {
				return err
			}
			if !c.connected.Swap(true) {
				answered()
				c.cfg.Log.Info("connected to the control plane", "trust_domain", in.TrustDomain)
			}
			c.cfg.Instructions(in)
		}
	})
	g.Go(func() error { return c.sendReports(ctx, stream) })
	return g.Wait()
}

// sendReports sends the report, and again after each change. The first change of a burst is sent at once, since callers
// of a workload that became unready wait for it; the rest are sent together.
func (c *Client) sendReports(ctx context.Context, stream rpc.Stream[agentapi.Report, agentapi.Instructions]) error {
	tick := time.NewTicker(countsEvery)
	defer tick.Stop()
	var last *agentapi.Report
	var sent time.Time
	for {
		if now := c.report(); last == nil || !reflect.DeepEqual(*last, now) {
			if err := stream.Send(&now); err != nil {
				return err
			}
			last, sent = &now, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cfg.Changed:
			if err := retry.Sleep(ctx, coalesce-time.Since(sent)); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
}
