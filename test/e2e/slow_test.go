//go:build e2e

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// drips are connections of those who say what they have to say byte by byte, or fall silent. They begin together and go
// on beside other tests; each must have been hung up on by the time that mayDrip has passed.
type drips struct {
	all sync.WaitGroup

	mu   sync.Mutex // guards held
	held []error
}

// mayDrip is longer than any patience of a listener with whom it does not know.
const mayDrip = 25 * time.Second

// add begins one. dial may itself say something first.
func (d *drips) add(what string, dial func() (net.Conn, error), says string) {
	d.all.Go(func() {
		if err := dripped(dial, says); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.held = append(d.held, fmt.Errorf("%s: %w", what, err))
		}
	})
}

func dripped(dial func() (net.Conn, error), says string) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	began := time.Now()
	if err := conn.SetDeadline(began.Add(mayDrip)); err != nil {
		return err
	}
	go func() {
		for i := range len(says) {
			if _, err := conn.Write([]byte{says[i]}); err != nil {
				return
			}
			waittest.Pace(200 * time.Millisecond)
		}
	}()
	if _, err := io.Copy(io.Discard, conn); isTimedOut(err) {
		return fmt.Errorf("still connected after %v", time.Since(began).Round(time.Second))
	}
	return nil
}

// hungUpOn waits for all of them to end.
func (d *drips) hungUpOn(t *testing.T) {
	d.all.Wait()
	if err := errors.Join(d.held...); err != nil {
		t.Error(err)
	}
}

// Two beginnings of a message that never ends.
const (
	longHeader = "GET /public HTTP/1.1\r\nHost: x\r\nX-Long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	longHello  = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
)

// halfShaken greets and then says nothing more: the server waits for the client's part of the handshake.
func halfShaken(conn net.Conn, conf *tls.Config) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if err := tls.Client(&greeting{Conn: conn}, conf).Handshake(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("the server does not answer the greeting: %w", err)
	}
	return conn, nil
}

// greeting lets one message out.
type greeting struct {
	net.Conn
	said bool
}

func (g *greeting) Write(b []byte) (int, error) {
	if g.said {
		return len(b), nil
	}
	g.said = true
	return g.Conn.Write(b)
}
