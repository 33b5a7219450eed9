// Package probe makes one attempt as a workload would, from inside its network, and says in JSON what came of it.
// `isthmus-samples probe` reads a Request line from its standard input and writes Result lines to its output.
package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"isthmus.dev/isthmus/samples/websocket"
)

// Request says what to try: exactly one of its fields.
type Request struct {
	HTTP   *HTTP   `json:"http,omitempty"`
	TCP    *TCP    `json:"tcp,omitempty"`
	Socket *Socket `json:"socket,omitempty"` // a WebSocket
	Watch  *HTTP   `json:"watch,omitempty"`  // one long answer, until it ends or standard input does
	Load   *Load   `json:"load,omitempty"`   // requests until standard input ends
	Chat   *Chat   `json:"chat,omitempty"`   // messages on one WebSocket until standard input ends
}

// HTTP is one request.
type HTTP struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Body    string            `json:"body,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Timeout time.Duration     `json:"timeout"`
}

// TCP is one connection on which Send is said and then listened until the other side ends it or Timeout passes.
type TCP struct {
	Address string        `json:"address"`
	Send    string        `json:"send,omitempty"`
	Timeout time.Duration `json:"timeout"`
}

// Socket is one WebSocket on which each message is sent and its answer awaited, unless Timeout passes.
type Socket struct {
	URL     string        `json:"url"`
	Send    []string      `json:"send"`
	Timeout time.Duration `json:"timeout"`
}

// Load is one request after another by several workers, half of them on a new connection each time.
type Load struct {
	HTTP
	Workers int           `json:"workers"`
	Pause   time.Duration `json:"pause"`
}

// Chat is one message after another on one WebSocket, each with its answer. One that ends is a failure, and opened
// again.
type Chat struct {
	URL     string        `json:"url"`
	Send    string        `json:"send"`
	Pause   time.Duration `json:"pause"`
	Timeout time.Duration `json:"timeout"` // of each message
}

// Result is what came of it.
type Result struct {
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"` // lower-case names, first values
	Body    string            `json:"body,omitempty"`    // of TCP and WebSockets: what was received
	Error   string            `json:"error,omitempty"`
	Time    time.Time         `json:"time"` // when the attempt ended
	Elapsed time.Duration     `json:"elapsed"`

	// Of Watch: the first of two lines is written when the answer begins.
	Began bool `json:"began,omitempty"`
	// Of Load, and of Chat, whose requests are messages.
	Requests  int            `json:"requests,omitempty"`
	Failures  int            `json:"failures,omitempty"`
	Failed    []Failure      `json:"failed,omitempty"` // the first of them
	ServedBy  map[string]int `json:"servedBy,omitempty"`
	Slowest   time.Duration  `json:"slowest,omitempty"`
	SlowestAt time.Time      `json:"slowestAt,omitzero"` // when that one began
}

// maxBody is how much of an answer is kept.
const maxBody = 64 << 10

// Main reads one Request from in, tries it and writes Results to out. Watch, Load and Chat end with in.
func Main(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the request: %w", err)
	}
	var req Request
	dec := json.NewDecoder(strings.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	write := func(r Result) error { return json.NewEncoder(out).Encode(r) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	untilEOF := func() {
		go func() {
			_, _ = io.Copy(io.Discard, lines) // however input ends, it ends the attempt
			cancel()
		}()
	}
	switch {
	case req.HTTP != nil:
		return write(get(ctx, http.DefaultClient, *req.HTTP))
	case req.TCP != nil:
		return write(listen(ctx, *req.TCP))
	case req.Socket != nil:
		return write(talk(ctx, *req.Socket))
	case req.Watch != nil:
		untilEOF()
		return watch(ctx, *req.Watch, write)
	case req.Load != nil:
		untilEOF()
		return write(load(ctx, *req.Load))
	case req.Chat != nil:
		untilEOF()
		return write(chat(ctx, *req.Chat))
	}
	return errors.New("the request names nothing to try: give http, tcp, socket, watch, load or chat")
}

func get(ctx context.Context, client *http.Client, h HTTP) (r Result) {
	start := time.Now()
	defer func() { r.Time, r.Elapsed = time.Now(), time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	resp, err := send(ctx, client, h)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer resp.Body.Close()
	r.Status, r.Headers = resp.StatusCode, flat(resp.Header)
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	r.Body = string(b)
	if err != nil {
		r.Error = fmt.Sprintf("read the answer: %v", err)
	}
	return r
}

func send(ctx context.Context, client *http.Client, h HTTP) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, h.Method, h.URL, strings.NewReader(h.Body))
	if err != nil {
		return nil, err
	}
	for name, value := range h.Headers {
		req.Header.Set(name, value)
	}
	return client.Do(req)
}

func flat(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name := range h {
		out[strings.ToLower(name)] = h.Get(name)
	}
	return out
}

func talk(ctx context.Context, s Socket) (r Result) {
	start := time.Now()
	defer func() { r.Time, r.Elapsed = time.Now(), time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	conn, header, err := websocket.Dial(ctx, s.URL)
	var refused *websocket.Refused
	switch {
	case errors.As(err, &refused):
		r.Status, r.Headers, r.Body = refused.Status, flat(refused.Header), refused.Body
		return r
	case err != nil:
		r.Error = err.Error()
		return r
	}
	defer conn.Close()
	r.Status, r.Headers = http.StatusSwitchingProtocols, flat(header)
	for _, message := range s.Send {
		err := conn.Send(message)
		if err == nil {
			var answer string
			answer, err = conn.Receive()
			r.Body += answer + "\n"
		}
		if err != nil {
			r.Error = err.Error()
			break
		}
	}
	return r
}

func listen(ctx context.Context, t TCP) (r Result) {
	start := time.Now()
	defer func() { r.Time, r.Elapsed = time.Now(), time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer conn.Close()
	_ = conn.SetDeadline(start.Add(t.Timeout)) // fails only on a closed connection, and then the read says so
	if _, err := io.WriteString(conn, t.Send); err != nil {
		r.Error = err.Error()
		return r
	}
	b, err := io.ReadAll(io.LimitReader(conn, maxBody))
	r.Body = string(b)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// watch writes one line when the answer begins and one when it ends; an end that we did not ask for says why.
func watch(ctx context.Context, h HTTP, write func(Result) error) error {
	start := time.Now()
	resp, err := send(ctx, http.DefaultClient, h)
	if err != nil {
		return write(Result{Error: err.Error(), Time: time.Now(), Elapsed: time.Since(start)})
	}
	defer resp.Body.Close()
	first := make([]byte, 256)
	n, err := resp.Body.Read(first)
	r := Result{
		Began: true, Status: resp.StatusCode, Headers: flat(resp.Header), Body: string(first[:n]), Time: time.Now(),
	}
	if err := write(r); err != nil {
		return err
	}
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	r = Result{Status: resp.StatusCode, Time: time.Now(), Elapsed: time.Since(start)}
	switch {
	case err != nil:
		r.Error = err.Error()
	default:
		r.Error = "the answer ended"
	}
	return write(r)
}
