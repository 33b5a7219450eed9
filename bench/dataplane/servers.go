package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"isthmus.dev/isthmus/bench/load"
)

// protocol is one way to call, with the ports of one server and of the hand-written Envoys' listeners for it.
type protocol struct {
	Name     string
	Port     int // of the service
	App      int // where the server listens
	Inbound  int // where a hand-written callee's Envoy listens
	Outbound int // where a hand-written caller's Envoy listens
	HTTP     bool
	H2       bool   // also between Envoy and application
	Prefix   string // of the service's port name, and of the import's protocol
	call     func(ctx context.Context, dial load.Dialer, address, host string) (load.Caller, error)
}

// answerSize of every answer, and of what TCP and gRPC send.
const answerSize = 1024

// protocols lists all of them.
func protocols() []protocol {
	return []protocol{
		{
			Name: "http1", Prefix: "http", Port: 80, App: 8080, Inbound: 15106, Outbound: 15101, HTTP: true,
			call: load.HTTP1,
		},
		{
			Name: "http2", Prefix: "http2", Port: 82, App: 8082, Inbound: 15206, Outbound: 15201, HTTP: true, H2: true,
			call: load.HTTP2,
		},
		{
			Name: "grpc", Prefix: "grpc", Port: 84, App: 8084, Inbound: 15406, Outbound: 15401, HTTP: true, H2: true,
			call: func(ctx context.Context, d load.Dialer, address, host string) (load.Caller, error) {
				return load.GRPC(ctx, d, address, host, answerSize)
			},
		},
		{
			Name: "tcp", Prefix: "tcp", Port: 90, App: 9090, Inbound: 15306, Outbound: 15301,
			call: func(ctx context.Context, d load.Dialer, address, _ string) (load.Caller, error) {
				return load.TCP(ctx, d, address, answerSize)
			},
		},
	}
}

func port(host string, p int) string { return net.JoinHostPort(host, strconv.Itoa(p)) }

// serveAll starts one server for each protocol at each of the workloads; stop ends them.
func serveAll(env *environment, workloads ...string) (stop func(), err error) {
	var closers []io.Closer
	stop = func() {
		for _, c := range closers {
			c.Close()
		}
	}
	for _, name := range workloads {
		for _, p := range env.protocols {
			l, err := env.lab.Place(name).Listen(port("0.0.0.0", p.App))
			if err != nil {
				stop()
				return nil, err
			}
			closers = append(closers, serve(p, l))
		}
	}
	return stop, nil
}

// serve answers on a listener until it is closed.
func serve(p protocol, l net.Listener) io.Closer {
	switch {
	case !p.HTTP:
		go each(l, echo)
		return l
	case !p.H2:
		go each(l, answerHTTP1)
		return l
	}
	go each(l, func(c net.Conn) { answerHTTP2(c, p.Name == "grpc") })
	return l
}

// each serves every connection, until the listener is closed.
func each(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// echo sends back whatever comes.
func echo(c net.Conn) { io.Copy(c, struct{ io.Reader }{c}) }

var body = bytes.Repeat([]byte{'x'}, answerSize)

// answerHTTP1 answers every request without a body, with as little work as the protocol allows: what the server saves,
// the proxies can spend.
func answerHTTP1(c net.Conn) {
	full := append([]byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: "+strconv.Itoa(answerSize)+
		"\r\n\r\n"), body...)
	in, have := make([]byte, 64<<10), 0
	for {
		n, err := c.Read(in[have:])
		if err != nil || n == 0 {
			return
		}
		have += n
		end := bytes.Index(in[:have], []byte("\r\n\r\n"))
		if end < 0 {
			continue
		}
		have = copy(in, in[end+4:have])
		if _, err := c.Write(full); err != nil {
			return
		}
	}
}

// answerHTTP2 answers every request once it is over, likewise: it reads no header, since all requests are alike. An
// answer is far below the windows of an Envoy.
func answerHTTP2(c net.Conn, grpc bool) {
	in, out := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	if _, err := io.CopyN(io.Discard, in, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(out, in)
	framer.SetReuseFrames()
	headers, message, trailers := headerBlock(":status", "200", "content-type", "text/plain"), body, []byte(nil)
	if grpc {
		headers = headerBlock(":status", "200", "content-type", "application/grpc")
		message = append([]byte{0, 0, 0, answerSize >> 8, answerSize & 0xff}, body...)
		trailers = headerBlock("grpc-status", "0")
	}
	answer := func(stream uint32) error {
		err := framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: headers, EndHeaders: true,
		})
		if err == nil {
			err = framer.WriteData(stream, trailers == nil, message)
		}
		if err == nil && trailers != nil {
			err = framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: stream, BlockFragment: trailers, EndHeaders: true, EndStream: true,
			})
		}
		return err
	}
	err := framer.WriteSettings()
	for unread := uint32(0); err == nil; {
		if in.Buffered() == 0 {
			if err = out.Flush(); err != nil {
				return
			}
		}
		var frame http2.Frame
		if frame, err = framer.ReadFrame(); err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				err = answer(f.StreamID)
			}
		case *http2.DataFrame:
			if unread += f.Length; unread > 16<<10 {
				err, unread = framer.WriteWindowUpdate(0, unread), 0
			}
			if err == nil && f.StreamEnded() {
				err = answer(f.StreamID)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = framer.WritePing(true, f.Data)
			}
		}
	}
}

// headerBlock encodes names and values without the table that the two ends of a connection share.
func headerBlock(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSizeLimit(0)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a buffer takes everything
	}
	return b.Bytes()
}
