//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
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
	"golang.org/x/net/http2/hpack"

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
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return answer{}, err
	}
	f := framer2(c)
	fields := []string{":method: " + r.method, ":scheme: http", ":path: " + r.path, ":authority: " + host}
	if err := sendHeaders(f, append(fields, r.headers...), len(r.trailers) == 0 && r.method != "CONNECT"); err != nil {
		return answer{}, err
	}
	if r.method == "CONNECT" {
		return connected2(f)
	}
	if len(r.trailers) > 0 {
		if err := f.WriteData(1, false, []byte("x")); err != nil {
			return answer{}, err
		}
		if err := sendHeaders(f, r.trailers, true); err != nil {
			return answer{}, err
		}
	}
	m, body, err := receive(f)
	if err != nil {
		return answer{}, err
	}
	status, err := strconv.Atoi(m[0].PseudoValue("status"))
	return answer{status, body}, err
}

// connected2 is the answer to an extended CONNECT (RFC 8441), whose stream must give every byte back.
func connected2(f *http2.Framer) (a answer, err error) {
	const said = "said on the stream"
	var heard string
	for heard != said {
		frame, err := f.ReadFrame()
		if err != nil {
			return a, fmt.Errorf("after %d %q: %w", a.status, heard, err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			a.status, err = strconv.Atoi(frame.PseudoValue("status"))
			if err != nil || a.status != 200 {
				return a, err
			}
			err = f.WriteData(1, false, []byte(said))
		case *http2.DataFrame:
			heard += string(frame.Data())
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("stream reset: %v", frame.ErrCode)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

func framer2(c io.ReadWriter) *http2.Framer {
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings() // the next write fails too
	return f
}

// sendHeaders writes headers or trailers of stream 1.
func sendHeaders(f *http2.Framer, fields []string, end bool) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range fields {
		i := strings.Index(h[1:], ":") + 1
		if err := enc.WriteField(hpack.HeaderField{Name: h[:i], Value: strings.TrimSpace(h[i+1:])}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// receive reads what comes on a stream until it ends: headers, perhaps trailers, and the data between.
func receive(f *http2.Framer) (out []*http2.MetaHeadersFrame, body string, err error) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return out, body, err
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = f.WritePing(true, frame.Data)
		case *http2.MetaHeadersFrame:
			out = append(out, frame)
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			body += string(frame.Data())
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			return out, body, fmt.Errorf("stream reset: %v", frame.ErrCode)
		case *http2.GoAwayFrame:
			return out, body, fmt.Errorf("going away: %v", frame.ErrCode)
		}
		if err != nil || ended {
			return out, body, err
		}
	}
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
	f := framer2(struct {
		io.Reader
		io.Writer
	}{in, c})
	texts := map[uint32][]string{}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = f.WritePing(true, frame.Data)
		case *http2.DataFrame:
			if frame.StreamEnded() {
				err = r.done(f, frame.StreamID, texts)
			}
		case *http2.MetaHeadersFrame:
			mark := "trailer "
			if texts[frame.StreamID] == nil {
				mark = ""
				texts[frame.StreamID] = []string{frame.PseudoValue("method") + " " + frame.PseudoValue("path")}
			}
			for _, h := range frame.RegularFields() {
				texts[frame.StreamID] = append(texts[frame.StreamID], mark+h.Name+": "+h.Value)
			}
			if frame.StreamEnded() {
				err = r.done(f, frame.StreamID, texts)
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *recorder) done(f *http2.Framer, stream uint32, texts map[uint32][]string) error {
	r.keep(strings.Join(texts[stream], "\n"))
	delete(texts, stream)
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"}); err != nil {
		return err
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}
