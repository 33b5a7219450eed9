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
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEnvoyMetricsAreForAdministrators(t *testing.T) {
	p := newPair(t, "metrics")
	p.cfg.Metrics = MetricsConfig{Address: "127.0.0.1:18020", Allow: []string{"spiffe://t.example/ns/monitoring/sa/prometheus"}}
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	stranger := newFakeControl(t, "stranger")
	as := func(f *fakeControl, path string) (string, error) {
		conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), InsecureSkipVerify: true}
		if path != "" {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			must(t, err)
			conf.Certificates = []tls.Certificate{{Certificate: [][]byte{f.sign(path, key.Public(), time.Hour)}, PrivateKey: key}}
		}
		c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		resp, err := c.Get("https://127.0.0.1:18020/metrics")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return fmt.Sprintf("%d %s", resp.StatusCode, readAll(t, resp)), nil
	}
	for _, path := range []string{"/isthmus/admin/ann", "/ns/monitoring/sa/prometheus"} {
		if got, err := as(p.control, path); err != nil || !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "isthmus_agent_info") {
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

// TestHelperAgent is the agent as a process of its own, when TestEnvoyDiesWithTheAgent starts it.
func TestHelperAgent(t *testing.T) {
	path := os.Getenv("ISTHMUS_TEST_AGENT")
	if path == "" {
		return
	}
	cfg, err := LoadConfig(path)
	must(t, err)
	a, err := New(cfg)
	must(t, err)
	must(t, a.Run(t.Context()))
}

func TestEnvoyDiesWithTheAgent(t *testing.T) {
	p := newPair(t, "dies")
	agent := exec.Command(os.Args[0], "-test.run=^TestHelperAgent$")
	agent.Env = append(os.Environ(), "ISTHMUS_TEST_AGENT="+p.file(t))
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, agent.Start())
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	eventually(t, 10*time.Second, "a call", p.call)
	pid := pidIn(t, p.cfg.RunDir)
	must(t, agent.Process.Kill())
	agent.Wait()
	eventually(t, 3*time.Second, "Envoy is gone", func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("pid %d lives", pid)
		}
		return nil
	})
	if body, err := get(p.web, "http://10.79.0.3:8080/"); err == nil {
		t.Errorf("plaintext passed after the agent was killed: %q", body)
	}
	runAgent(t, p.cfg) // the next agent takes over what was left
	eventually(t, 10*time.Second, "a call through the next agent", p.call)
}

// file is the pair's configuration, written out.
func (p *pair) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	must(t, os.WriteFile(path, []byte(p.text), 0o600))
	return path
}
