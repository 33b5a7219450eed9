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

// protocol is one way to call, with the ports of one server and of the hand-written pair's listeners for it.
type protocol struct {
	Name     string
	App      int // where the server listens
	Inbound  int // where the callee's Envoy listens
	Outbound int // where the caller's Envoy listens
	HTTP     bool
	H2       bool // also between Envoy and application
	call     func(ctx context.Context, dial load.Dialer, address string) (load.Caller, error)
}

// serverHost is the authority that callers ask for.
const serverHost = "callee.default.svc.cluster.local"

// answerSize of every answer.
const answerSize = 1024

// protocols lists all of them.
func protocols() []protocol {
	return []protocol{
		{
			Name: "http1", App: 8080, Inbound: 15106, Outbound: 15101, HTTP: true,
			call: func(ctx context.Context, d load.Dialer, a string) (load.Caller, error) {
				return load.HTTP1(ctx, d, a, serverHost)
			},
		},
		{
			Name: "http2", App: 8082, Inbound: 15206, Outbound: 15201, HTTP: true, H2: true,
			call: func(ctx context.Context, d load.Dialer, a string) (load.Caller, error) {
				return load.HTTP2(ctx, d, a, serverHost)
			},
		},
		{
			Name: "tcp", App: 9090, Inbound: 15306, Outbound: 15301,
			call: func(ctx context.Context, d load.Dialer, a string) (load.Caller, error) {
				return load.TCP(ctx, d, a, answerSize)
			},
		},
	}
}

func port(host string, p int) string { return net.JoinHostPort(host, strconv.Itoa(p)) }

// serveAll starts one server for each protocol on the host; stop ends them.
func serveAll(h *host, ps []protocol) (stop func(), err error) {
	var closers []io.Closer
	stop = func() {
		for _, c := range closers {
			c.Close()
		}
	}
	for _, p := range ps {
		l, err := h.listen(port("0.0.0.0", p.App))
		if err != nil {
			stop()
			return nil, err
		}
		if !p.HTTP {
			closers = append(closers, l)
			go echo(l)
			continue
		}
		srv := &http.Server{Handler: http.HandlerFunc(answer), Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		closers = append(closers, srv)
		go srv.Serve(l)
	}
	return stop, nil
}

func answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("content-type", "text/plain")
	w.Write(bytes.Repeat([]byte{'x'}, answerSize))
}

// echo sends back whatever comes, until the listener is closed.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}
