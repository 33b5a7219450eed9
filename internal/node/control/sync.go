package control

import (
	"context"
	"errors"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/retry"
	"isthmus.dev/isthmus/internal/rpc"
)

const (
	openTimeout = 10 * time.Second      // to say so in the log when the control plane is away
	coalesce    = 20 * time.Millisecond // between a change and its report
	countsEvery = time.Second           // for what changes all the time and that nobody announces
)

var errNoAnswer = errors.New("the control plane does not answer")

// converse holds the standing stream, opening it again whenever it ends.
func (c *Client) converse(ctx context.Context) error {
	wait := retry.Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second}
	for {
		conn := c.conn.Load()
		err := c.sync(ctx, conn, wait.Reset)
		c.connected.Store(false)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case conn != c.conn.Load():
			continue // a renewed certificate, a new connection
		}
		c.cfg.Log.Warn("control plane away, trying again", "control", c.cfg.Addresses, "error", err)
		if err := retry.Sleep(ctx, wait.Next()); err != nil {
			return err
		}
	}
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
	opening.Stop() // a control plane without configuration has nothing to say yet
	g.Go(func() error {
		for {
			in, err := stream.Recv()
			if err != nil {
				return err
			}
			if !c.connected.Swap(true) {
				answered()
				c.cfg.Log.Info("connected to the control plane", "trustDomain", in.TrustDomain)
			}
			c.cfg.Instructions(in)
		}
	})
	g.Go(func() error { return c.tell(ctx, stream) })
	return g.Wait()
}

// tell sends the report, and again whenever it changed.
func (c *Client) tell(ctx context.Context, stream rpc.Stream[agentapi.Report, agentapi.Instructions]) error {
	tick := time.NewTicker(countsEvery)
	defer tick.Stop()
	var last *agentapi.Report
	for {
		if now := c.report(); last == nil || !reflect.DeepEqual(*last, now) {
			if err := stream.Send(&now); err != nil {
				return err
			}
			last = &now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cfg.Changed:
			if err := retry.Sleep(ctx, coalesce); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
}
