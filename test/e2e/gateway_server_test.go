//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gwServer stands for what the gateway calls: a peer's gateway or a local workload. It keeps all that it reads. A name
// with "raw" in it is served raw TCP, banner first and echo after; any other HTTP, of version 1 or 2.
type gwServer struct {
	name string

	mu       sync.Mutex // guards all below
	config   *tls.Config
	plain    bool // speak without TLS
	raw      bool // every name is raw
	dials    int  // connections, whatever became of them
	shaken   int  // handshakes that were finished
	read     bytes.Buffer
	requests []gwRequest
	open     map[net.Conn]bool
}

// gwRequest is one request as it arrived.
type gwRequest struct {
	SNI, Client, Proto, Method, Host, URI, Body string
	Header                                      http.Header
}

// startServer serves on an address of the world until the test ends.
func startServer(t *testing.T, name, addr string, config *tls.Config) *gwServer {
	t.Helper()
	s := &gwServer{name: name, config: config, open: map[net.Conn]bool{}}
	l, web := gwListen(t, addr), &handed{conns: make(chan net.Conn), done: make(chan struct{})}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // the server below sees what is inside TLS
	h := &http.Server{
		Handler: http.HandlerFunc(s.answer), Protocols: &protocols, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context,
			c net.Conn,
		) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	go h.Serve(web)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c, web)
		}
	}()
	t.Cleanup(func() { l.Close(); h.Close(); s.hangUp() })
	return s
}

type connKey struct{}

// handed is a listener for connections that were accepted elsewhere.
type handed struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// recorded is a connection whose every byte is kept.
type recorded struct {
	net.Conn
	s           *gwServer
	sni, client string
}

func (r *recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.read.Write(b[:n])
	return n, err
}

func (s *gwServer) serve(c net.Conn, web *handed) {
	s.mu.Lock()
	config, plain := s.config, s.plain
	s.dials++
	s.open[c] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	}()
	r := &recorded{Conn: c, s: s}
	asked := false
	if !plain {
		config = config.Clone()
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			// what control planes say to each other is not for this test
			if strings.HasPrefix(hello.ServerName, "control.") {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.dials--
				return nil, errors.New("no control plane here")
			}
			// what gateways ask each other is not for this test
			if slices.Contains(hello.SupportedProtos, "isthmus-health") {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.dials--
				asked = true
				own := config.Clone()
				own.GetConfigForClient, own.NextProtos = nil, []string{"isthmus-health"}
				return own, nil
			}
			return nil, nil
		}
		conn := tls.Server(c, config)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if conn.HandshakeContext(ctx) != nil {
			c.Close()
			return
		}
		if asked {
			isWell(conn)
			return
		}
		st := conn.ConnectionState()
		r.Conn, r.sni = conn, st.ServerName
		if len(st.PeerCertificates) > 0 && len(st.PeerCertificates[0].URIs) > 0 {
			r.client = st.PeerCertificates[0].URIs[0].String()
		}
	}
	s.mu.Lock()
	s.shaken++
	raw := s.raw || strings.Contains(r.sni, "raw")
	s.mu.Unlock()
	if !raw {
		closed := make(chan struct{})
		select {
		case web.conns <- &told{r, sync.OnceFunc(func() { close(closed) })}:
			select {
			case <-closed:
			case <-web.done:
			}
		case <-web.done:
		}
		return
	}
	defer r.Close()
	if _, err := io.WriteString(r, "220 "+s.name+" ready\n"); err == nil {
		io.Copy(r, r)
	}
}

// isWell answers the questions for health that come on a connection.
func isWell(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewReader(conn); ; {
		if _, err := http.ReadRequest(lines); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// told says when it is closed.
type told struct {
	*recorded
	closed func()
}

func (t *told) Close() error { t.closed(); return t.recorded.Close() }

func (s *gwServer) answer(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*told)
	header := w.Header()
	header.Set("X-App", "kept")
	for _, name := range []string{
		"Server", "Via", "X-Powered-By", "X-Envoy-Upstream-Service-Time",
		"X-Envoy-Decorator-Operation", "X-Envoy-Peer-Metadata", "X-Envoy-Secret", "X-Forwarded-Client-Cert",
	} {
		header.Set(name, "inner-"+s.name)
	}
	q := gwRequest{
		SNI: c.sni, Client: c.client, Proto: r.Proto, Method: r.Method, Host: r.Host, URI: r.RequestURI,
		Header: r.Header.Clone(),
	}
	if r.URL.Path != "/stream" {
		b, _ := io.ReadAll(r.Body)
		q.Body = string(b)
	}
	s.mu.Lock()
	s.requests = append(s.requests, q)
	s.mu.Unlock()
	switch r.URL.Path {
	case "/stream": // until its client goes: a line for each line
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		b := make([]byte, 512)
		for {
			fmt.Fprintf(w, "%s lives\n", s.name)
			http.NewResponseController(w).Flush()
			if _, err := r.Body.Read(b); err != nil {
				return
			}
		}
	case "/upgrade": // gives back what comes
		header.Set("Connection", "upgrade")
		header.Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, rw)
	case "/v1/moved":
		header.Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	case "/v1/says": // headers and trailers as asked for, "…" being very much of one text
		for _, v := range r.URL.Query()["header"] {
			name, value, _ := strings.Cut(v, ": ")
			header.Add(name, strings.ReplaceAll(value, "…", strings.Repeat(r.URL.Query().Get("much"), 40_000)))
		}
		fmt.Fprintln(w, s.name)
		for _, v := range r.URL.Query()["trailer"] {
			name, value, _ := strings.Cut(v, ": ")
			header.Add(http.TrailerPrefix+name, value)
		}
	case "/unwell": // 503, with the word of an Envoy if one is asked for
		if word := r.URL.Query().Get("word"); word != "" {
			header.Set("isthmus-unavailable", word)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, s.name, "is unwell")
	case "/grpc/fails": // without a message, as servers of gRPC do
		header.Set("Content-Type", "application/grpc")
		header.Set("Grpc-Status", "2")
	case "/grpc":
		header.Set("Content-Type", "application/grpc")
		header.Set("Trailer", "Grpc-Status")
		io.WriteString(w, q.Body)
		header.Set("Grpc-Status", "0")
	default:
		fmt.Fprintln(w, s.name)
	}
}

// set changes how new connections are met, and ends those of before.
func (s *gwServer) set(config *tls.Config, plain bool) {
	s.mu.Lock()
	s.config, s.plain = config, plain
	s.mu.Unlock()
	s.hangUp()
}

func (s *gwServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

// gwSeen is what a server saw up to a moment.
type gwSeen struct {
	Dials, Shaken int
	Read          string
	Requests      []gwRequest
}

func (s *gwServer) seen() gwSeen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return gwSeen{s.dials, s.shaken, s.read.String(), slices.Clone(s.requests)}
}

// since is what came after an earlier moment.
func (s *gwServer) since(before gwSeen) gwSeen {
	now := s.seen()
	return gwSeen{
		now.Dials - before.Dials, now.Shaken - before.Shaken, now.Read[len(before.Read):],
		now.Requests[len(before.Requests):],
	}
}
