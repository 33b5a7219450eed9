package envoyproc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/envoy"
)

// Bounds on one trial.
const (
	trialPatience = 20 * time.Second
	maxTrialWords = 4 << 10
)

// trials is the directory, in the run directory, of the configuration on trial.
const trials = "trial"

// Refusal is Envoy's reason for rejecting a configuration.
type Refusal string

func (r Refusal) Error() string { return string(r) }

// Try loads resources into a separate Envoy that serves nobody. It returns nil, or a Refusal; any other error means
// that they could not be tried.
func (s *Supervisor) Try(ctx context.Context, resources []*envoy.Resource) error {
	config, err := s.trialConfig(resources)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.RunDir, trials)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("try a configuration: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return fmt.Errorf("try a configuration: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	words := &head{}
	cmd := exec.CommandContext(ctx, s.cfg.Binary, "--mode", "validate", "--concurrency", "1", "--disable-hot-restart",
		"--log-level", "error", "--config-path", file)
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = words, words, []string{}, dir
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("try a configuration: Envoy gave no answer within %s", trialPatience)
	case errors.As(err, &exit):
		return Refusal(strings.TrimSpace(fmt.Sprintf("%s: %s", exit, words)))
	case err != nil:
		return fmt.Errorf("try a configuration: %w", err)
	}
	return nil
}

func (s *Supervisor) trialConfig(resources []*envoy.Resource) ([]byte, error) {
	text, err := s.bootstrap().JSON()
	if err != nil {
		return nil, err
	}
	var bootstrap map[string]any
	if err := json.Unmarshal(text, &bootstrap); err != nil {
		return nil, fmt.Errorf("read Envoy bootstrap: %w", err)
	}
	cert, err := placeholder()
	if err != nil {
		return nil, err
	}
	config, err := envoy.Static(bootstrap, resources, cert)
	if err != nil {
		return nil, fmt.Errorf("try a configuration: %w", err)
	}
	return json.Marshal(config)
}

var placeholder = sync.OnceValues(NewPlaceholder)

// NewPlaceholder creates a certificate that nobody trusts.
func NewPlaceholder() (envoy.Placeholder, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return envoy.Placeholder{}, fmt.Errorf("make a placeholder: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"placeholder.invalid"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return envoy.Placeholder{}, fmt.Errorf("make a placeholder: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return envoy.Placeholder{}, fmt.Errorf("make a placeholder: %w", err)
	}
	return envoy.Placeholder{
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// head keeps the beginning of what is written to it: Envoy says there why it failed, before its stack.
type head struct{ buf bytes.Buffer }

var _ io.Writer = (*head)(nil)

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), maxTrialWords-h.buf.Len())])
	return len(p), nil
}

func (h *head) String() string { return strings.ToValidUTF8(h.buf.String(), "") }
