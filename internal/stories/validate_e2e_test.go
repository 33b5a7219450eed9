//go:build e2e

package stories

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// TestEnvoyAccepts lets a real Envoy judge what every proxy of every story is told: routes, endpoints and roots stand inside
// the listeners and clusters that would ask for them, so that all of it is checked.
func TestEnvoyAccepts(t *testing.T) {
	binary := locate(t)
	for _, path := range storyFiles(t) {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Read("testdata", a)
		if err != nil {
			t.Fatal(err)
		}
		mesh, _ := compile.Mesh(s.Snapshot)
		if mesh == nil {
			continue
		}
		for _, n := range s.Snapshot.Registry.Nodes {
			t.Run(storyName(path)+"/"+n.Name, func(t *testing.T) {
				t.Parallel()
				if err := validate(t, binary, wholeConfig(t, Resources(mesh, n.Name))); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestEnvoyJudges makes sure that the judge is awake: what Envoy cannot tell apart, and what it was not told, it refuses.
func TestEnvoyJudges(t *testing.T) {
	binary := locate(t)
	a, err := txtar.ParseFile("testdata/mesh/one-caller.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read("testdata", a)
	if err != nil {
		t.Fatal(err)
	}
	mesh, _ := compile.Mesh(s.Snapshot)
	for want, spoil := range map[string]func(static map[string]any){
		"same matching rules": func(static map[string]any) {
			for _, l := range static["listeners"].([]any) {
				l := l.(map[string]any)
				chains, _ := l["filter_chains"].([]any)
				l["filter_chains"] = append(chains, chains...)
			}
		},
		"Unknown static certificate": func(static map[string]any) { static["secrets"] = nil },
		"unknown cluster":            func(static map[string]any) { static["clusters"] = static["clusters"].([]any)[:1] },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			config := wholeConfig(t, Resources(mesh, "n1"))
			spoil(config["static_resources"].(map[string]any))
			if err := validate(t, binary, config); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want a refusal with %q", err, want)
			}
		})
	}
}

func locate(t *testing.T) string {
	t.Helper()
	binary, err := envoyproc.Locate("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func validate(t *testing.T, binary string, config map[string]any) error {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--mode", "validate", "--concurrency", "1", "-l", "warning", "-c", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("deprecated")) {
		return fmt.Errorf("Envoy refuses it, or finds it old: %w\n%s", err, out)
	}
	return nil
}

// wholeConfig is a bootstrap in which all resources are static, certificates and roots among them: validation never asks
// for anything, and an Envoy that only validates dies where a static cluster would ask for a secret.
func wholeConfig(t *testing.T, rs map[string][]*envoy.Resource) map[string]any {
	t.Helper()
	text, err := envoyproc.Bootstrap{Node: "n", AgentSocket: "/nowhere/agent.sock", AdminSocket: "/nowhere/admin.sock", MaxConnections: 1000, MaxHeapBytes: 1 << 30}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	delete(config, "admin")
	dynamic := config["dynamic_resources"].(map[string]any)
	delete(dynamic, "lds_config")
	delete(dynamic, "cds_config")
	static := config["static_resources"].(map[string]any)
	clusters := static["clusters"].([]any)
	for _, r := range rs[envoy.ClusterType] {
		clusters = append(clusters, spelled(t, r))
	}
	for _, r := range rs[envoy.EndpointType] {
		clusters = append(clusters, map[string]any{"name": "endpoints/" + r.Name, "type": "STATIC", "load_assignment": spelled(t, r)})
	}
	static["clusters"] = clusters
	routes, asked := map[string]any{}, map[string]bool{}
	for _, r := range rs[envoy.RouteType] {
		routes[r.Name] = spelled(t, r)
	}
	var listeners []any
	for _, r := range rs[envoy.ListenerType] {
		listeners = append(listeners, withRoutes(t, spelled(t, r), routes, asked))
	}
	static["listeners"] = listeners
	secrets := map[string]any{}
	withoutSDS(static["clusters"], secrets)
	withoutSDS(static["listeners"], secrets)
	for _, r := range rs[envoy.SecretType] {
		secrets[r.Name] = spelled(t, r) // in place of a certificate: one that is asked for and not told stays one, and is refused
	}
	static["secrets"] = slices.Collect(maps.Values(secrets))
	for name := range routes {
		if !asked[name] {
			t.Errorf("no listener asks for the routes %s", name)
		}
	}
	return config
}

// withoutSDS makes every secret a static one, and gives each that is asked for a certificate.
func withoutSDS(v any, secrets map[string]any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			withoutSDS(item, secrets)
		}
	case map[string]any:
		if _, ok := v["sds_config"]; ok {
			name := v["name"].(string)
			delete(v, "sds_config")
			secrets[name] = map[string]any{"name": name, "tls_certificate": certificate()}
		}
		for _, item := range v {
			withoutSDS(item, secrets)
		}
	}
}

// certificate stands for all that the agent would give.
var certificate = sync.OnceValue(func() map[string]any {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"any.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return map[string]any{
		"certificate_chain": map[string]any{"inline_string": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))},
		"private_key":       map[string]any{"inline_string": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))},
	}
})

// withRoutes puts route configurations where a listener would ask for them. Two may ask for one.
func withRoutes(t *testing.T, v any, routes map[string]any, asked map[string]bool) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = withRoutes(t, v[i], routes, asked)
		}
	case map[string]any:
		if rds, ok := v["rds"].(map[string]any); ok {
			name := rds["route_config_name"].(string)
			if routes[name] == nil {
				t.Errorf("a listener asks for routes %s that nobody has", name)
			}
			delete(v, "rds")
			v["route_config"] = routes[name]
			asked[name] = true
		}
		for k := range v {
			v[k] = withRoutes(t, v[k], routes, asked)
		}
	}
	return v
}

func spelled(t *testing.T, r *envoy.Resource) map[string]any {
	t.Helper()
	m, err := r.Config()
	if err != nil {
		t.Fatal(err)
	}
	return m
}
