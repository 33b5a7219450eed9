//go:build e2e

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// gwCaller stands for who calls the gateway: a local caller or a peer's gateway. Without a certificate of its own it
// shows the right one.
type gwCaller struct {
	from, to, sni string
	cert          *tls.Certificate
	peer          *gwPeer // of a caller from outside
	node          *gwNode
	asserts       []string // isthmus-caller headers
	host          string   // what HTTP asks for; default: the name in the handshake
	change        func(*tls.Config)
	// control makes it the control plane of the peer with this certificate, behind the peer's gateway.
	control    *tls.Certificate
	controlSNI string // what it asks the control plane for; default: sni
}

// caller calls an import as one of the local service accounts; name is "p<port>.<import>". Port 7100 is raw TCP, where
// each caller has a name of its own to ask for.
func (g *gateway) caller(serviceAccount, name string) gwCaller {
	port, host, _ := strings.Cut(name, ".")
	own := ""
	if port == "p7100" {
		sum := sha256.Sum256([]byte("spiffe://home.example/ns/default/sa/" + serviceAccount))
		own = hex.EncodeToString(sum[:16]) + ".caller."
	}
	return gwCaller{
		from: "10.98.1.21", to: gwEgress, sni: own + name + ".default.svc.cluster.local",
		host: host + ".default.svc.cluster.local",
		cert: g.node.svids[serviceAccount], node: g.node,
	}
}

// errNotReached is a gateway that does not listen, which proves nothing.
var errNotReached = errors.New("the gateway was not reached")

// with shows another certificate.
func (c gwCaller) with(cert *tls.Certificate) gwCaller { c.cert = cert; return c }

// dial makes the connection and the handshake. Under TLS 1.3 a refused client learns of it at its first read.
func (c gwCaller) dial() (*tls.Conn, error) {
	raw, err := gwDial(c.from, c.to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotReached, err)
	}
	conf := &tls.Config{
		ServerName: c.sni, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: c.verify,
	}
	if c.cert != nil { // shown whatever authorities the server names
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
	}
	if c.change != nil {
		c.change(conf)
	}
	conn := tls.Client(raw, conf)
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if c.control == nil {
		return conn, nil
	}
	inner := tls.Client(conn, &tls.Config{
		ServerName: cmp.Or(c.controlSNI, c.sni), MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{*c.control},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if id := cs.PeerCertificates[0].URIs[0].String(); id != "spiffe://home.example/isthmus/control" {
				return fmt.Errorf("behind the gateway is %s", id)
			}
			return nil
		},
	})
	if err := inner.Handshake(); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake behind the gateway: %w", err)
	}
	return inner, nil
}

// verify knows the gateway by its identity, and from inside also by its root.
func (c gwCaller) verify(cs tls.ConnectionState) error {
	if id := cs.PeerCertificates[0].URIs[0].String(); id != gwGatewayID {
		return fmt.Errorf("the gateway shows %s", id)
	}
	if c.node == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: c.node.roots, Intermediates: between})
	return err
}

// client speaks HTTP/1.1 or, with h2, HTTP/2 over one connection at a time.
func (c gwCaller) client(h2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2) // TLS is made by dial
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		Protocols: &protocols, MaxConnsPerHost: 1, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := c.dial()
			if err != nil {
				return nil, err
			}
			return conn, conn.SetDeadline(time.Time{})
		},
	}}
}

// gwAnswer is what came back.
type gwAnswer struct {
	Code   int
	Header http.Header
	Body   string
}

// ask sends one request on a connection of its own; an error says that it was not answered with 200.
func (g *gateway) ask(c gwCaller, method, path string, header ...string) (gwAnswer, error) {
	c = g.filled(c)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, c.hostName())
	for _, v := range c.asserts {
		fmt.Fprintf(&b, "isthmus-caller: %s\r\n", v)
	}
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	a, err := g.send(c, b.String()+"Connection: close\r\n\r\n")
	if err == nil && a.Code != http.StatusOK {
		err = fmt.Errorf("%d: %s", a.Code, strings.TrimSpace(a.Body))
	}
	return a, err
}

func (c gwCaller) hostName() string {
	if c.host != "" {
		return c.host
	}
	return c.sni
}

// filled shows the right certificate where none was chosen.
func (g *gateway) filled(c gwCaller) gwCaller {
	if c.cert == nil && c.peer != nil {
		c.cert = c.peer.own
	}
	return c
}

// send writes raw bytes and reads one answer.
func (g *gateway) send(c gwCaller, request string) (gwAnswer, error) {
	conn, err := g.filled(c).dial()
	if err != nil {
		return gwAnswer{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return gwAnswer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return gwAnswer{}, fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return gwAnswer{resp.StatusCode, resp.Header, string(body)}, err
}

// refused says nil when a caller got nothing at all: no handshake, or one that ends before a byte.
func (g *gateway) refused(c gwCaller) error {
	conn, err := g.filled(c).dial()
	if err != nil {
		if errors.Is(err, errNotReached) || isTimedOut(err) {
			return fmt.Errorf("neither refused nor admitted: %w", err)
		}
		return nil
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+c.hostName()+"\r\n\r\n")
	b := make([]byte, 256)
	n, err := conn.Read(b)
	switch {
	case n > 0:
		return fmt.Errorf("it was answered: %q", b[:n])
	case isTimedOut(err):
		return errors.New("the connection stays open")
	}
	return nil
}

// silent connects and says nothing: what does a raw port tell?
func (g *gateway) silent(c gwCaller, wait time.Duration) (string, error) {
	conn, err := g.filled(c).dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 256)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// talk writes and reads until the other side closes.
func talk(conn net.Conn, request string) string {
	if _, err := io.WriteString(conn, request); err != nil {
		return ""
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}

func statusDigits(code int) string { return fmt.Sprintf("%03d", code) }
