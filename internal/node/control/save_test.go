package control

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/node/identity"
)

// TestIdentityThatCannotBeWritten: a new identity is in use though its file cannot be written, which is said once; it
// is written as soon as it can be.
func TestIdentityThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	var said strings.Builder
	c := New(Config{Log: slog.New(slog.NewTextHandler(&said, nil)), IdentityFile: filepath.Join(dir, "identity.pem")})
	svid := selfSigned(t)
	c.setCertificate(svid)
	c.saveAgain()
	if c.Identity() != svid || strings.Count(said.String(), "not saved") != 1 {
		t.Errorf("in use is %v; it said: %s", c.Identity(), said.String())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.saveAgain()
	kept, err := identity.Load(c.cfg.IdentityFile)
	if err != nil || kept.State().Serial != svid.State().Serial {
		t.Errorf("written was %v, %v", kept, err)
	}
}

func selfSigned(t *testing.T) *identity.SVID {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cards.example", Path: "/isthmus/node/n"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := identity.NewSVID(key, [][]byte{der}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// Two agents that share a folder by mistake do not share an identity.
func TestAnothersIdentityIsNotTaken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity.pem")
	if err := identity.Save(file, selfSigned(t)); err != nil {
		t.Fatal(err)
	}
	c := New(Config{
		Log: slog.New(slog.DiscardHandler), Node: "m", IdentityFile: file, Addresses: []string{"127.0.0.1:1"},
	})
	if _, err := c.join(t.Context()); err == nil ||
		!strings.Contains(err.Error(), `is the identity of node "n", and the settings are those of "m"`) {
		t.Errorf("it joins as another: %v", err)
	}
	c = New(Config{
		Log: slog.New(slog.DiscardHandler), Node: "n", IdentityFile: file, Addresses: []string{"127.0.0.1:1"},
	})
	if _, err := c.join(t.Context()); err != nil {
		t.Errorf("it does not take its own: %v", err)
	}
}
