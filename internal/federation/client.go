package federation

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// exchangeTimeout bounds one request to a peer, including the connection.
const exchangeTimeout = 10 * time.Second

// exchange is one HTTP request on its own connection.
type exchange struct {
	method, host, path string
	header             http.Header
	body               []byte
	limit              int64 // of the response body
}

// reply is the response, whoever sent it.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// ask sends one request on conn, closes conn, and returns the response. Any status other than 200 and 204 is an error.
func ask(ctx context.Context, conn net.Conn, e exchange) (*reply, error) {
	r, err := send(ctx, conn, e)
	switch {
	case err != nil:
		return nil, err
	case r.status == http.StatusOK || r.status == http.StatusNoContent:
		return r, nil
	}
	return nil, remoteRefusal{status: r.status, refusal: readRefusal(r.body)}
}

// send sends one request on conn and closes conn.
func send(ctx context.Context, conn net.Conn, e exchange) (*reply, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if d, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(d); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, e.method, "http://"+e.host+e.path, bytes.NewReader(e.body))
	if err != nil {
		return nil, err
	}
	if e.header != nil {
		req.Header = e.header
	}
	if e.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "isthmus")
	t := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, e.limit+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if int64(len(body)) > e.limit {
		return nil, fmt.Errorf("the answer is larger than %d bytes", e.limit)
	}
	return &reply{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

// remoteRefusal is an error answered by another mesh.
type remoteRefusal struct {
	status int
	refusal
}

func (r remoteRefusal) Error() string {
	if r.Code == "" {
		return fmt.Sprintf("the other side answered with HTTP status %d: %s", r.status,
			cmp.Or(r.Message, "nothing more"))
	}
	return fmt.Sprintf("the other mesh answered: %s (HTTP status %d)", r.Message, r.status)
}

// final reports whether a retry is pointless.
func (r remoteRefusal) final() bool {
	return r.status >= 400 && r.status < 500 && r.status != http.StatusTooManyRequests &&
		r.status != http.StatusNotFound && r.Code != ""
}

// readRefusal parses untrusted text into one bounded, printable line.
func readRefusal(body []byte) refusal {
	var r refusal
	if json.Unmarshal(body, &r) != nil {
		return refusal{Message: printable(string(body), 200)} // written by a gateway, not a control plane
	}
	return refusal{
		Code: printable(r.Code, 40), Message: printable(r.Message, 400), Sequence: min(r.Sequence, math.MaxInt64),
	}
}

func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s[:min(len(s), 4*limit)])
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return s
}

// isFinal reports whether err would be the same on a retry.
func isFinal(err error) bool {
	var r remoteRefusal
	var f finalError
	return errors.As(err, &f) || errors.As(err, &r) && r.final()
}

// finalError marks an error after which a retry would be wrong: the other side is not the expected one.
type finalError struct{ error }

func (f finalError) Unwrap() error { return f.error }
