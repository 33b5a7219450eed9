//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestAllowAny: where unlisted addresses may be called, Envoy still never calls itself, and the mesh's virtual
// addresses lead nowhere: a name that is refused at one is not passed on in plaintext.
func TestAllowAny(t *testing.T) {
	s := openShop(t, strings.Replace(shopMesh, "certificateTTL: 10s", "certificateTTL: 5m, outbound: AllowAny", 1),
		map[string][]member{"front": callers, "back": servers})
	files := fmt.Sprintf("/proc/%d/fd", s.envoyPID(t, "front"))
	open := func() int {
		list, err := os.ReadDir(files)
		need(t, err)
		return len(list)
	}
	before := open()
	for _, to := range []string{"127.0.0.1:15001", "127.0.0.1:15001", "127.0.0.1:15006", "10.93.0.11:15006"} {
		c, err := s.dial("alice", to)
		if err != nil {
			continue // capture refuses it
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if text, _ := hear(c, 2*time.Second); text != "" && !strings.HasPrefix(text, "HTTP/1.1 4") {
			t.Errorf("%s answers %q", to, text)
		}
		if grown := open() - before; grown > 50 {
			t.Fatalf("one connection to %s has Envoy open %d files", to, grown)
		}
	}
	heard := s.listenOutside(t)
	if r := s.get("alice", "10.93.0.66:9999", "/"); heard() == 0 {
		t.Errorf("an unlisted address is not passed on: %s", r)
	}
	for _, to := range []string{"240.240.0.1:80", "240.240.0.1:8080", "240.240.77.7:9999"} {
		if r := s.get("alice", to, "/"); r.status != 403 || !strings.Contains(r.body, "may not call") {
			t.Errorf("%s: %s", to, r)
		}
	}
	need(t, s.expect(200, s.get("alice", "steady", "/")))
}
