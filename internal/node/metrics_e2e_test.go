//go:build e2e

package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEnvoyMetricsAreForAdministrators(t *testing.T) {
	p := newPair(t, "metrics")
	p.cfg.Metrics = MetricsConfig{
		Address: freeAddress(t),
		Allow:   []string{"spiffe://t.example/ns/monitoring/sa/prometheus"},
	}
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	stranger := newFakeControl(t, "stranger")
	as := func(f *fakeControl, path string) (string, error) {
		conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), InsecureSkipVerify: true}
		if path != "" {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			must(t, err)
			conf.Certificates = []tls.Certificate{{
				Certificate: [][]byte{f.sign(path, key.Public(), time.Hour)},
				PrivateKey:  key,
			}}
		}
		c := http.Client{
			Timeout:   5 * time.Second,
			Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		}
		resp, err := c.Get("https://" + p.cfg.Metrics.Address + "/metrics")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return fmt.Sprintf("%d %s", resp.StatusCode, readAll(t, resp)), nil
	}
	for _, path := range []string{"/isthmus/admin/ann", "/ns/monitoring/sa/prometheus"} {
		if got, err := as(p.control, path); err != nil || !strings.HasPrefix(got, "200 ") ||
			!strings.Contains(got, "isthmus_agent_info") {
			t.Errorf("%s: %.60q, %v", path, got, err)
		}
	}
	for _, path := range []string{"/ns/default/sa/web", "/isthmus/node/node-1", "/isthmus/control"} {
		if got, err := as(p.control, path); err != nil || !strings.HasPrefix(got, "403 ") {
			t.Errorf("%s: %.60q, %v", path, got, err)
		}
	}
	if got, err := as(p.control, ""); err == nil {
		t.Errorf("without a certificate: %.60q", got)
	}
	if got, err := as(stranger, "/isthmus/admin/ann"); err == nil {
		t.Errorf("an administrator of another root: %.60q", got)
	}
}

// file is the pair's configuration, written out.
func (p *pair) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	must(t, os.WriteFile(path, []byte(p.text), 0o600))
	return path
}
