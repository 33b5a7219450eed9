//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// answer is what the client gets.
type answer struct {
	status int
	body   string
}

// host takes the Host out of the headers, if one is there.
func (r request) host(name string) (request, string) {
	for i, h := range r.headers {
		if host, ok := strings.CutPrefix(h, "host: "); ok {
			r.headers = slices.Delete(slices.Clone(r.headers), i, i+1)
			return r, host
		}
	}
	return r, name
}

// ask sends one request, to the letter, on a connection of its own.
func (a *asker) ask(r request, name string) (answer, error) {
	c, err := a.dial(name)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r, host := r.host(name + ".default.svc.cluster.local")
	if r.http2 {
		return ask2(c, r, host)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/%s\r\nhost: %s\r\n", r.method, r.path, r.version, host)
	for _, h := range r.headers {
		b.WriteString(h + "\r\n")
	}
	if len(r.trailers) > 0 {
		b.WriteString("transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + strings.Join(r.trailers, "\r\n") + "\r\n")
	}
	if _, err := io.WriteString(c, b.String()+"\r\n"); err != nil {
		return answer{}, err
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{status: resp.StatusCode}, echoed(c, in)
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(body)}, err
}

// echoed says something on a stream whose other end gives every byte back.
func echoed(w io.Writer, r io.Reader) error {
	const said = "said on the stream\n"
	if _, err := io.WriteString(w, said); err != nil {
		return err
	}
	heard := make([]byte, len(said))
	if _, err := io.ReadFull(r, heard); err != nil || string(heard) != said {
		return fmt.Errorf("the stream gave back %q, %v", heard, err)
	}
	return nil
}

func ask2(c net.Conn, r request, host string) (answer, error) {
	h, err := newHTTP2Client(c)
	if err != nil {
		return answer{}, err
	}
	fields := []string{":method: " + r.method, ":scheme: http", ":path: " + r.path, ":authority: " + host}
	if err := h.begin(append(fields, r.headers...), len(r.trailers) == 0 && r.method != "CONNECT"); err != nil {
		return answer{}, err
	}
	if r.method == "CONNECT" { // extended (RFC 8441)
		status, err := h.status()
		if err == nil && status == http.StatusOK {
			err = h.echo("said on the stream")
		}
		return answer{status: status}, err
	}
	if len(r.trailers) > 0 {
		if err := h.WriteData(h.stream, false, []byte("x")); err != nil {
			return answer{}, err
		}
		if err := writeFields(h.Framer, h.stream, r.trailers, true); err != nil {
			return answer{}, err
		}
	}
	m, body, err := h.rest()
	if err != nil {
		return answer{}, err
	}
	status, err := strconv.Atoi(m[0].PseudoValue("status"))
	return answer{status, body}, err
}

// recorder is an application that keeps what it gets, one request a text: the line, "name: value" for each header,
// "trailer name: value" for each trailer.
type recorder struct {
	mu       sync.Mutex // guards requests
	requests []string
}

func record(t *testing.T, netns, address string) *recorder {
	t.Helper()
	var l net.Listener
	need(t, lab.Inside(netns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	t.Cleanup(func() { l.Close() })
	r := &recorder{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); r.serve(c) }()
		}
	}()
	return r
}

func (r *recorder) keep(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, text)
}

func (r *recorder) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

// serve speaks HTTP/1.1 or HTTP/2, whichever the other side does.
func (r *recorder) serve(c net.Conn) {
	in := bufio.NewReader(c)
	if b, err := in.Peek(4); err == nil && string(b) == "PRI " {
		r.serve2(c, in)
		return
	}
	for {
		line, headers, err := head(in)
		if err != nil {
			return
		}
		text := []string{strings.TrimSuffix(line, " HTTP/1.1")}
		length, chunked, upgrade := 0, false, ""
		for _, h := range headers {
			text = append(text, h)
			name, value, _ := strings.Cut(h, ": ")
			switch strings.ToLower(name) {
			case "content-length":
				length, _ = strconv.Atoi(value)
			case "transfer-encoding":
				chunked = true
			case "upgrade":
				upgrade = value
			}
		}
		for ; length > 0; length-- {
			_, _ = in.ReadByte()
		}
		for chunked {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
			if err != nil {
				return
			}
			if size == 0 {
				first, more, err := head(in)
				if err != nil {
					return
				}
				for _, h := range append([]string{first}, more...) {
					if h != "" {
						text = append(text, "trailer "+h)
					}
				}
				break
			}
			if _, err := io.CopyN(io.Discard, in, size+2); err != nil {
				return
			}
		}
		r.keep(strings.Join(text, "\n")) // before the answer, so that who has the answer finds it
		if strings.Contains(line, " /upgrade ") && upgrade != "" {
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: %s\r\n\r\n", upgrade)
			_, _ = io.Copy(c, in)
			return
		}
		answer := "content-length: 0"
		if slices.Contains(text, "user-agent: client/1.0 (x; y)") {
			answer = strings.Join(programAnswer, "\r\n")
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answer+"\r\n\r\n"); err != nil {
			return
		}
	}
}

// head reads lines up to an empty one.
func head(in *bufio.Reader) (first string, rest []string, err error) {
	for n := 0; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case n == 0:
			if first = line; line == "" {
				return "", nil, nil
			}
		case line == "":
			return first, rest, nil
		default:
			rest = append(rest, line)
		}
	}
}

// serve2 answers each stream of a connection.
func (r *recorder) serve2(c net.Conn, in *bufio.Reader) {
	if _, err := in.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	f := framer(struct {
		io.Reader
		io.Writer
	}{in, c})
	texts := map[uint32][]string{}
	for {
		frame, err := next(f)
		if err != nil {
			return
		}
		stream := frame.Header().StreamID
		ended := false
		switch frame := frame.(type) {
		case *http2.DataFrame:
			ended = frame.StreamEnded()
		case *http2.MetaHeadersFrame:
			mark := "trailer "
			if texts[stream] == nil {
				mark = ""
				texts[stream] = []string{frame.PseudoValue("method") + " " + frame.PseudoValue("path")}
			}
			for _, h := range frame.RegularFields() {
				texts[stream] = append(texts[stream], mark+h.Name+": "+h.Value)
			}
			ended = frame.StreamEnded()
		}
		if !ended {
			continue
		}
		r.keep(strings.Join(texts[stream], "\n"))
		delete(texts, stream)
		if writeFields(f, stream, []string{":status: 200"}, true) != nil {
			return
		}
	}
}
