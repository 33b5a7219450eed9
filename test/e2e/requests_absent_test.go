//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// rawImport is one of raw TCP, of an export that there is none of.
const rawImport = `---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: raw, namespace: default}
spec: {port: 80, protocol: TCP, from: [{peer: cards, name: raw}], callers: [storefront]}
`

// suspendedPeer: who calls an import whose peer is suspended hears that, and not that a policy refuses; so says the log
// of its node. A raw connection is closed without a byte, and stands there, too.
func suspendedPeer(t *testing.T, s *strip, c *asker) {
	_, err := s.isthmus("peer", "suspend", "cards", "--yes", "--socket", s.socket("retail"))
	need(t, err)
	const why = "nobody serves this import now: peer cards is suspended"
	within(t, 30*time.Second, "the caller hears why", func() error {
		got, err := c.ask(request{method: "GET", path: "/suspended", version: "1.1"}, "far0")
		if want := "isthmus: far0.default.svc.cluster.local:80: 503 " + why + "\n"; err == nil &&
			(got.status != 503 || got.body != want) {
			err = fmt.Errorf("%d %q, want 503 %q", got.status, got.body, want)
		}
		return err
	})
	raw, err := c.dial("raw")
	need(t, err)
	defer raw.Close()
	if err := closed(raw, 10*time.Second); err != nil {
		t.Errorf("raw: %v", err)
	}
	folders, err := filepath.Glob(filepath.Join(s.dir, "retail", "*", "run"))
	need(t, err)
	args := []string{"logs", "--workload", "default/storefront", "--refused", "--tail", "0", "-o", "json"}
	for _, f := range folders {
		args = append(args, "--run-dir", f)
	}
	within(t, 30*time.Second, "the log says why", func() error {
		text, err := s.isthmus(args...)
		http, tcp := false, false
		for _, l := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
			var e struct{ Log, Verdict, Class, Reason, Path, Method string }
			if err := json.Unmarshal(l, &e); err != nil {
				return fmt.Errorf("%w: %s", err, l)
			}
			if e.Log == "outbound" && e.Verdict == "failed" && e.Class == "no-source" && e.Reason == why {
				http, tcp = http || e.Path == "/suspended", tcp || e.Method == ""
			}
		}
		if err == nil && (!http || !tcp) {
			err = fmt.Errorf("the request (%t), the raw connection (%t) are there:\n%s", http, tcp, text)
		}
		return err
	})
}
