package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Dialer opens connections, in whichever network namespace the caller lives.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// callTimeout ends a call that hangs.
const callTimeout = 5 * time.Second

// HTTP1 calls GET / over HTTP/1.1 on a connection of its own, with as little work as the protocol allows.
func HTTP1(ctx context.Context, dial Dialer, address, host string) (Caller, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &http1{
		conn: conn, r: bufio.NewReader(conn), request: []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"),
	}, nil
}

type http1 struct {
	conn    net.Conn
	r       *bufio.Reader
	request []byte
}

func (c *http1) Close() error { return c.conn.Close() }

func (c *http1) Call() error {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("the answer is %q", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		if len(key) == len("content-length") && bytes.EqualFold(key, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("read the content length: %w", err)
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no content length")
	}
	_, err = c.r.Discard(length)
	return err
}

// TCP sends size bytes and reads them back, on a connection of its own.
func TCP(ctx context.Context, dial Dialer, address string, size int) (Caller, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &tcp{conn: conn, out: bytes.Repeat([]byte{'x'}, size), in: make([]byte, size)}, nil
}

type tcp struct {
	conn    net.Conn
	out, in []byte
}

func (c *tcp) Close() error { return c.conn.Close() }

func (c *tcp) Call() error {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	_, err := io.ReadFull(c.conn, c.in)
	return err
}
