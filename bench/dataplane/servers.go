package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"

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
	srv := &http.Server{Handler: http.HandlerFunc(answer), Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(l)
	return srv
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

// answer answers HTTP/2, and gRPC with its frame and trailer.
func answer(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("content-type", "text/plain")
		w.Write(body)
		return
	}
	io.Copy(io.Discard, r.Body)
	w.Header().Set("content-type", "application/grpc")
	w.Header().Set("trailer", "grpc-status")
	w.Write(append([]byte{0, 0, 0, answerSize >> 8, answerSize & 0xff}, body...))
	w.Header().Set("grpc-status", "0")
}

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
