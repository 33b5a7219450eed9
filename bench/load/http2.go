package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// window is how much the caller lets the server send ahead; it is topped up at half.
const window = 1 << 24

// HTTP2 calls GET / over cleartext HTTP/2, one stream after the other on a connection of its own.
func HTTP2(ctx context.Context, dial Dialer, address, host string) (Caller, error) {
	return newHTTP2(ctx, dial, address, []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: host},
		{Name: ":path", Value: "/"},
	}, nil)
}

// GRPC makes unary calls with size bytes each over cleartext HTTP/2, on a connection of its own.
func GRPC(ctx context.Context, dial Dialer, address, host string, size int) (Caller, error) {
	message := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
	return newHTTP2(ctx, dial, address, []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: host},
		{Name: ":path", Value: "/bench.Echo/Unary"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, append(message, bytes.Repeat([]byte{'x'}, size)...))
}

type http2Caller struct {
	conn    net.Conn
	out     *bufio.Writer
	framer  *http2.Framer
	request []hpack.HeaderField
	body    []byte
	stream  uint32
	unread  uint32 // bytes for which the server has not been given new room

	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	answer  struct{ status, grpcStatus string }
}

func newHTTP2(
	ctx context.Context, dial Dialer, address string, request []hpack.HeaderField, body []byte,
) (Caller, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &http2Caller{conn: conn, out: bufio.NewWriter(conn), request: request, body: body, stream: 1}
	c.framer = http2.NewFramer(c.out, bufio.NewReader(conn))
	c.framer.SetReuseFrames()
	c.encoder = hpack.NewEncoder(&c.block)
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			c.answer.status = f.Value
		case "grpc-status":
			c.answer.grpcStatus = f.Value
		}
	})
	if err := c.begin(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("begin HTTP/2: %w", err)
	}
	return c, nil
}

func (c *http2Caller) begin() error {
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, window); err != nil {
		return err
	}
	return c.out.Flush()
}

func (c *http2Caller) Close() error { return c.conn.Close() }

func (c *http2Caller) Call() error {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	if err := c.ask(); err != nil {
		return err
	}
	c.answer.status, c.answer.grpcStatus = "", ""
	for {
		end, err := c.readFrame()
		if err != nil {
			return err
		}
		if end {
			break
		}
	}
	c.stream += 2
	if c.answer.status != "200" || c.body != nil && c.answer.grpcStatus != "0" {
		return fmt.Errorf("the answer is %q, gRPC status %q", c.answer.status, c.answer.grpcStatus)
	}
	return nil
}

// ask sends the request.
func (c *http2Caller) ask() error {
	c.block.Reset()
	for _, f := range c.request {
		if err := c.encoder.WriteField(f); err != nil {
			return err
		}
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: c.stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: c.body == nil,
	})
	if err == nil && c.body != nil {
		err = c.framer.WriteData(c.stream, true, c.body) // far below any server's window
	}
	if err != nil {
		return err
	}
	return c.out.Flush()
}

// readFrame reads one frame; end is true of the last of an answer.
func (c *http2Caller) readFrame() (end bool, err error) {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return false, err
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		if !f.HeadersEnded() {
			return false, fmt.Errorf("an answer with headers in several frames")
		}
		if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return false, err
		}
		return f.StreamEnded(), nil
	case *http2.DataFrame:
		return f.StreamEnded(), c.updateWindow(f.Length)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return false, nil
		}
		return false, c.framer.WriteSettingsAck() // goes out with the next request
	case *http2.PingFrame:
		if f.IsAck() {
			return false, nil
		}
		if err := c.framer.WritePing(true, f.Data); err != nil {
			return false, err
		}
		return false, c.out.Flush()
	case *http2.RSTStreamFrame:
		return false, fmt.Errorf("the stream was reset: %s", f.ErrCode)
	case *http2.GoAwayFrame:
		return false, fmt.Errorf("the connection is closed: %s", f.ErrCode)
	}
	return false, nil
}

// updateWindow sends a WINDOW_UPDATE for the connection; a stream never needs one.
func (c *http2Caller) updateWindow(n uint32) error {
	c.unread += n
	if c.unread < window/2 {
		return nil
	}
	err := c.framer.WriteWindowUpdate(0, c.unread)
	c.unread = 0
	return err
}
