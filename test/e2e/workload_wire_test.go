//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
	"isthmus.dev/isthmus/internal/wellknown"
)

// app is a server that keeps exactly what arrives.
type app struct {
	name   string
	banner string
	conns  atomic.Int64
	sick   atomic.Bool

	mu       sync.Mutex // guards requests and raw
	requests []string   // heads of HTTP requests, as sent
	raw      []byte     // of raw TCP ports
}

// serve starts the program of one port: HTTP on 808x, HTTP/2 and gRPC on their own, a server
// that speaks first and then echoes on 700x.
func (s *shop) serve(t *testing.T, m member, port int) {
	t.Helper()
	a := &app{name: m.name, banner: fmt.Sprintf("banner of %s:%d %s\n", m.name, port, s.canary)}
	if m.name == "mixed" { // which speaks plaintext too
		a.banner = "banner of mixed\n"
	}
	s.apps[fmt.Sprintf("%s:%d", m.name, port)] = a
	var l net.Listener
	need(t, lab.Inside(s.netns(m.name), func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(m.address, strconv.Itoa(port)))
		return err
	}))
	t.Cleanup(func() { l.Close() })
	answer := a.http
	switch {
	case port == streamsPort:
		go serveStreams(l)
		return
	case port == http2Port:
		go serveHTTP2(l)
		return
	case port == grpcPort, port == httpGRPCPort:
		go serveGRPC(l)
		return
	case port/10 != 808:
		answer = a.tcp
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); answer(c) }()
		}
	}()
}

func (a *app) tcp(c net.Conn) {
	a.conns.Add(1)
	if _, err := io.WriteString(c, a.banner); err != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		a.mu.Lock()
		if len(a.raw) < 1<<20 {
			a.raw = append(a.raw, buf[:n]...)
		}
		a.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// http answers 200 to whatever it can read, and keeps also what it cannot.
func (a *app) http(c net.Conn) {
	a.conns.Add(1)
	seen := &bytes.Buffer{}
	in := bufio.NewReader(io.TeeReader(c, seen))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			if seen.Len() > 0 {
				a.keep(seen.String())
			}
			return
		}
		if req.Header.Get("User-Agent") == "isthmus-probe" {
			status := "200 OK"
			if a.sick.Load() {
				status = "503 Sick"
			}
			fmt.Fprintf(c, "HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", status)
			return
		}
		if req.Header.Get("Expect") != "" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			a.keep(seen.String())
			return
		}
		a.keep(seen.String()) // before the answer, so that who has the answer finds it
		seen.Reset()
		if strings.HasSuffix(req.URL.Path, "/hang-up") {
			return
		}
		if req.URL.RawQuery == "silent" {
			io.Copy(io.Discard, c)
			return
		}
		if _, status, ok := strings.Cut(req.URL.Path, "/status/"); ok {
			fmt.Fprintf(c, "HTTP/1.1 %s Own\r\ncontent-length: 0\r\n\r\n", status)
			continue
		}
		if strings.HasPrefix(req.URL.Path, "/protocols/") {
			if !answerSpecially(c, in, req) {
				return
			}
			continue
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(a.name),
			a.name); err != nil {
			return
		}
	}
}

func (a *app) keep(request string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, request)
}

// arrived are the requests, or the raw bytes, since the last question.
func (a *app) arrived() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.requests
	if len(a.raw) > 0 {
		out = append(out, string(a.raw))
	}
	a.requests, a.raw = nil, nil
	return out
}

func (s *shop) app(name string) *app {
	a := s.apps[name]
	if a == nil {
		panic("no such server: " + name)
	}
	return a
}

// dial connects from inside a namespace, as a program there would.
func (s *shop) dial(from, address string) (c net.Conn, err error) {
	err = lab.Inside(s.netns(from), func() error {
		c, err = net.DialTimeout("tcp", address, 2*time.Second)
		return err
	})
	return c, err
}

// bypass connects from inside a workload's namespace past its capture, as its node's Envoy does.
func (s *shop) bypass(from, address string) (net.Conn, error) {
	return cgrouptest.Dial(s.group(from), filepath.Join("/run/netns", s.netns(from)), address, wellknown.SocketMark)
}

// group is the control group of the Envoys that serve a workload.
func (s *shop) group(workload string) string {
	for name, members := range s.nodes {
		for _, m := range members {
			if m.name == workload {
				return node.ControlGroup(name, s.path(name, "run"))
			}
		}
	}
	panic("no node has " + workload)
}

// resolve asks the DNS of a workload. Answers are not kept: who may not call is told another address.
func (s *shop) resolve(from, name string) (netip.Addr, error) {
	r, err := s.question(from, "udp", "127.0.0.1:53", name, dns.TypeA)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address for %s: %s", from, name, dns.RcodeToString[r.Rcode])
}

// question asks a DNS server from inside a namespace.
func (s *shop) question(from, network, server, name string, qtype uint16) (r *dns.Msg, err error) {
	err = lab.Inside(s.netns(from), func() error {
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), qtype)
		client := dns.Client{Net: network, Timeout: time.Second}
		r, _, err = client.Exchange(q, server)
		return err
	})
	return r, err
}

// to is the address at which a workload finds a service: "web" or "web:7000"; one that begins with a digit stands for
// itself.
func (s *shop) to(from, service string) (string, error) {
	if service[0] >= '0' && service[0] <= '9' {
		return service, nil
	}
	name, port, ok := strings.Cut(service, ":")
	if !ok {
		port = "80"
	}
	a, err := s.resolve(from, name+".default.svc.cluster.local")
	return net.JoinHostPort(a.String(), port), err
}

// reply is what came back: a status, or what happened instead.
type reply struct {
	status int
	body   string
	err    error
}

func (r reply) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("%d %s", r.status, strings.TrimSpace(r.body))
}

func (s *shop) expect(status int, r reply) error {
	if r.err != nil || r.status != status {
		return fmt.Errorf("got %s, want %d", r, status)
	}
	return nil
}

// get asks a service for a path; headers are "name: value".
func (s *shop) get(from, service, path string, headers ...string) reply {
	return s.request(from, service, "GET", path, headers...)
}

func (s *shop) request(from, service, method, path string, headers ...string) reply {
	c, err := s.open(from, service)
	if err != nil {
		return reply{err: err}
	}
	defer c.Close()
	return c.request(method, path, headers...)
}

// line is one open connection to a service.
type line struct {
	net.Conn
	in   *bufio.Reader
	host string
	say  string
}

func (s *shop) open(from, service string) (*line, error) {
	address, err := s.to(from, service)
	if err != nil {
		return nil, err
	}
	c, err := s.dial(from, address)
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(service, ":")
	return &line{Conn: c, in: bufio.NewReader(c), host: host, say: s.canary}, nil
}

// request on an open connection, which stays open.
func (l *line) request(method, path string, headers ...string) reply {
	host := l.host
	var more strings.Builder
	for _, h := range headers {
		if v, ok := strings.CutPrefix(h, "host: "); ok {
			host = v
			continue
		}
		more.WriteString(h + "\r\n")
	}
	return l.send(fmt.Sprintf("%s %s HTTP/1.1\r\nhost: %s\r\nx-canary: %s\r\n%s\r\n", method, path, host, l.say,
		more.String()))
}

// send writes raw bytes and reads one response.
func (l *line) send(raw string) reply {
	l.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(l, raw); err != nil {
		return reply{err: err}
	}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, body: string(body), err: err}
}

// raw sends bytes on a connection of their own.
func (s *shop) raw(from, service, bytes string) reply {
	c, err := s.open(from, service)
	if err != nil {
		return reply{err: err}
	}
	defer c.Close()
	return c.send(bytes)
}

// hear reads for a while from a connection on which nothing was said, and gives what came.
func hear(c net.Conn, wait time.Duration) (string, error) {
	c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// closed waits until the other side ends the connection without a word.
func closed(c net.Conn, wait time.Duration) error {
	text, err := hear(c, wait)
	switch {
	case text != "":
		return fmt.Errorf("it said %q", text)
	case err == nil, errors.Is(err, unix.ETIMEDOUT), isTimeout(err):
		return errors.New("it is still open")
	}
	return nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// sniffer looks at every frame on the wire.
type sniffer struct {
	fd      int
	needle  []byte
	frames  atomic.Int64
	between atomic.Int64 // of TCP from a workload to a workload
	sighted atomic.Int64

	mu    sync.Mutex // guards first
	first string
}

// sniff looks for a needle in all that passes a namespace's devices.
func sniff(t *testing.T, netns, needle string) *sniffer {
	t.Helper()
	w := &sniffer{fd: -1, needle: []byte(needle)}
	all := int(uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8)
	need(t, lab.Inside(netns, func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	}))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for !stop.Load() {
			n, _, err := unix.Recvfrom(w.fd, buf, 0)
			if err != nil {
				continue // nothing for a while
			}
			w.frames.Add(1)
			if tcpInside(buf[:n]) {
				w.between.Add(1)
			}
			if bytes.Contains(buf[:n], w.needle) {
				w.sighted.Add(1)
				w.mu.Lock()
				w.first = strconv.Quote(string(buf[:min(n, 300)]))
				w.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-done; unix.Close(w.fd) })
	return w
}

// none complains of what was seen.
func (w *sniffer) none() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.sighted.Load(); n > 0 {
		return fmt.Errorf("%d frames in plaintext, for example %s", n, w.first)
	}
	return nil
}

// tcpInside says whether an Ethernet frame holds TCP between two workloads.
func tcpInside(frame []byte) bool {
	inside := func(a []byte) bool { return bytes.Equal(a[:3], []byte{10, 93, 0}) && a[3] > 10 && a[3] < 60 }
	return len(frame) >= 34 && frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_TCP &&
		inside(frame[26:30]) && inside(frame[30:34])
}

// noPlaintext: of all that was said in all tests, nothing was ever on the wire in plaintext.
func (s *shop) noPlaintext(t *testing.T) {
	need(t, s.wire.none())
	// And had there been any, it would have been seen.
	c, err := s.dial(outsider, "10.93.0.24:8080")
	need(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /open HTTP/1.1\r\nhost: mixed\r\nx-canary: "+s.canary+"\r\n\r\n")
	need(t, err)
	within(t, 2*time.Second, "a plaintext request is seen", func() error {
		if s.wire.sighted.Load() == 0 {
			return fmt.Errorf("%d frames and not this", s.wire.frames.Load())
		}
		return nil
	})
	t.Logf("%d frames looked at", s.wire.frames.Load())
}
