//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framer speaks HTTP/2 frame by frame, at either end of a connection whose preface has passed.
func framer(c io.ReadWriter, settings ...http2.Setting) *http2.Framer {
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings(settings...) // the next write fails too
	return f
}

// next is the next frame of any stream; what keeps the connection going is answered before.
func next(f *http2.Framer) (http2.Frame, error) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = f.WritePing(true, frame.Data)
			}
		default:
			return frame, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// writeFields writes the headers or trailers of a stream, each "name: value".
func writeFields(f *http2.Framer, stream uint32, fields []string, end bool) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range fields {
		i := strings.Index(h[1:], ":") + 1
		if err := enc.WriteField(hpack.HeaderField{Name: h[:i], Value: strings.TrimSpace(h[i+1:])}); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true,
		EndStream: end,
	})
}

// http2Client is a client's end of a connection, which has one stream at a time.
type http2Client struct {
	net.Conn
	*http2.Framer
	stream uint32 // the current one
}

// newHTTP2Client begins a connection.
func newHTTP2Client(c net.Conn) (*http2Client, error) {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	return &http2Client{Conn: c, Framer: framer(c), stream: 1}, nil
}

// begin opens the next stream by its headers.
func (h *http2Client) begin(fields []string, end bool) error {
	h.stream += 2
	return writeFields(h.Framer, h.stream, fields, end)
}

// next is the next frame of the current stream; an error, if that is reset or the connection going away.
func (h *http2Client) next() (http2.Frame, error) {
	for {
		frame, err := next(h.Framer)
		if err != nil {
			return nil, err
		}
		if f, ok := frame.(*http2.GoAwayFrame); ok {
			return nil, fmt.Errorf("going away: %s %q", f.ErrCode, f.DebugData())
		}
		if frame.Header().StreamID != h.stream {
			continue
		}
		if f, ok := frame.(*http2.RSTStreamFrame); ok {
			return nil, fmt.Errorf("stream reset: %s", f.ErrCode)
		}
		return frame, nil
	}
}

// status waits for the headers of the answer.
func (h *http2Client) status() (int, error) {
	for {
		frame, err := h.next()
		if err != nil {
			return 0, err
		}
		if m, ok := frame.(*http2.MetaHeadersFrame); ok {
			return strconv.Atoi(m.PseudoValue("status"))
		}
	}
}

// rest reads until the stream ends: headers, perhaps trailers, and the data between.
func (h *http2Client) rest() (out []*http2.MetaHeadersFrame, body string, err error) {
	for {
		frame, err := h.next()
		if err != nil {
			return out, body, err
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			out = append(out, frame)
		case *http2.DataFrame:
			body += string(frame.Data())
		}
		if frame.Header().Flags.Has(http2.FlagDataEndStream) { // of headers, it is the same bit
			return out, body, nil
		}
	}
}

// echo sends text and waits until all of it has come back.
func (h *http2Client) echo(text string) error {
	if err := h.WriteData(h.stream, false, []byte(text)); err != nil {
		return err
	}
	var got []byte
	for !bytes.HasSuffix(got, []byte(text)) {
		frame, err := h.next()
		if err != nil {
			return fmt.Errorf("got %q: %w", got, err)
		}
		if data, ok := frame.(*http2.DataFrame); ok {
			got = append(got, data.Data()...)
		}
	}
	return nil
}
