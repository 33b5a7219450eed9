package demo

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
)

// serve answers TLS handshakes on loopback, one after another.
func serve(t *testing.T, conf *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Write([]byte("HTTP/1.1 404 Not Found\r\n\r\n")) // makes the handshake, and fails with it
			}()
		}
	}()
	return ln.Addr().String()
}

// TestShakeTellsAcceptedFromRefused: the tour's verdict on handshakes is itself tried against servers known to accept
// and known to refuse.
func TestShakeTellsAcceptedFromRefused(t *testing.T) {
	mine, err := forge(gatewayID)
	if err != nil {
		t.Fatal(err)
	}
	other, err := forge(gatewayID)
	if err != nil {
		t.Fatal(err)
	}
	pool := func(c tls.Certificate) *x509.CertPool {
		root, err := x509.ParseCertificate(c.Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		p.AddCert(root)
		return p
	}
	conf := func(roots *x509.CertPool) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{mine},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		}
	}
	for _, c := range []struct {
		name  string
		conf  *tls.Config
		certs []tls.Certificate
		want  string
	}{
		{"its own root", conf(pool(mine)), []tls.Certificate{mine}, "accepted (TLS 1.3)"},
		{"another root", conf(pool(other)), []tls.Certificate{mine}, "unknown certificate authority"},
		{"no certificate", conf(pool(mine)), nil, "certificate required"},
	} {
		raw, err := net.Dial("tcp", serve(t, c.conf))
		if err != nil {
			t.Fatal(err)
		}
		if got := hear(raw, "payments", c.certs); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestShakeOfAClosedDoor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			conn.Close()
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := hear(raw, "payments", nil); got != "closed" && !strings.Contains(got, "reset") {
		t.Errorf("%q", got)
	}
}
