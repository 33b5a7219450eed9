//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// resolvConfs are those that a workload may have: it needs none of its own.
var resolvConfs = map[string]string{
	"a server elsewhere": "nameserver 192.168.1.1\n",
	"the loopback":       "nameserver 127.0.0.1\n",
	"that of a host":     "nameserver 192.168.1.1\nnameserver 192.168.1.2\nsearch corp.example lan\noptions edns0 trust-ad\n",
	"that of Kubernetes": "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n",
}

// resolver is a program that resolves the names that it is given.
type resolver struct {
	name     string
	command  []string
	searches bool // completes names by the search list of resolv.conf
}

// resolvers builds what is to be built.
func resolvers(t *testing.T) []resolver {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join("testdata", "resolvers", name) }
	build := func(command string, args ...string) {
		t.Helper()
		cmd := exec.Command(command, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	build("cc", "-o", filepath.Join(dir, "glibc"), in("resolve.c"))
	build("musl-gcc", "-static", "-o", filepath.Join(dir, "musl"), in("resolve.c"))
	build("go", "build", "-o", filepath.Join(dir, "go"), "./"+in("resolve"))
	return []resolver{
		{"glibc", []string{filepath.Join(dir, "glibc")}, true},
		{"musl", []string{filepath.Join(dir, "musl")}, true},
		{"Go", []string{filepath.Join(dir, "go")}, true},
		{"Python", []string{"python3", in("resolve.py")}, true},
		{"Node, lookup", []string{"node", in("resolve.js"), "lookup"}, true},
		{"Node, resolve", []string{"node", in("resolve.js"), "resolve"}, false},
		{"JVM", []string{"java", in("Resolve.java")}, true},
	}
}

// TestResolvers resolves names as programs do, with the resolver of each language: a name that may be called has its
// address, one that may not has the refusal's, one that is nowhere does not exist, whatever stands in resolv.conf, and
// nobody has to wait for an answer that does not come.
func TestResolvers(t *testing.T) {
	t.Parallel()
	programs := resolvers(t)
	s := raise(t, "isthmus-t-dns")
	netns := s.prefix + "-retail-storefront"
	_, text, err := (&asker{netns: netns}).address("catalogue.default.svc.cluster.local")
	need(t, err)
	const refusal = "240.240.0.1"
	names := map[string]string{
		"catalogue": text, "catalogue.default": text, "catalogue.default.svc": text,
		"catalogue.default.svc.cluster.local": text,
		"CATALOGUE.Default":                   text, "standby.default": refusal, "nosuch.default": refusal,
		"nosuch.default.svc.cluster.local": refusal,
		"bank.example":                     "none", "catalogue.default.svc.cluster.local.cluster.local": "none",
	}
	asked := slices.Sorted(maps.Keys(names))
	ask := func(t *testing.T) {
		for conf, content := range resolvConfs {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			need(t, os.WriteFile(path, []byte(content), 0o644))
			for _, r := range programs {
				got := resolve(t, netns, path, r.command, asked)
				for _, name := range asked {
					if got[name] != names[name] {
						t.Errorf("%s, resolv.conf: %s: %s is %q, want %q", r.name, conf, name, got[name], names[name])
					}
				}
				if r.searches && strings.Contains(content, "cluster.local") {
					continue // then it is the resolver that makes a name of the mesh of "nosuch"
				}
				if one := resolve(t, netns, path, r.command, []string{"nosuch"}); one["nosuch"] != "none" {
					t.Errorf("%s, resolv.conf: %s: nosuch is %q", r.name, conf, one["nosuch"])
				}
			}
		}
	}
	t.Run("listed names only", ask)
	mesh := filepath.Join(s.dir, "retail", "config", "mesh.yaml")
	b, err := os.ReadFile(mesh)
	need(t, err)
	need(t, os.WriteFile(mesh, bytes.Replace(b, []byte("\n  trustDomain:"),
		[]byte("\n  outbound: AllowAny\n  trustDomain:"), 1), 0o644))
	within(t, 30*time.Second, "unlisted addresses may be called", func() error {
		// of types that are never forwarded, nobody says then that the name is nowhere
		return lab.Inside(netns, func() error {
			r, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion("www.example.",
				dns.TypeNULL), "127.0.0.1:53")
			if err == nil && r.Rcode != dns.RcodeSuccess {
				err = fmt.Errorf("still %s", dns.RcodeToString[r.Rcode])
			}
			return err
		})
	})
	t.Run("any name, without upstreams", ask)
	t.Run("who is refused is told at once", func(t *testing.T) {
		for _, port := range []string{"80", "5432"} {
			var got []byte
			need(t, lab.Inside(netns, func() error {
				c, err := net.DialTimeout("tcp", net.JoinHostPort(refusal, port), 10*time.Second)
				if err != nil {
					return nil // that is a refusal
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.WriteString(c,
					"GET / HTTP/1.1\r\nhost: nosuch.default\r\nconnection: close\r\n\r\n"); err != nil {
					return nil
				}
				got, err = io.ReadAll(c)
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					return err
				}
				return nil
			}))
			t.Logf("port %s: %.60q", port, got)
		}
	})
}

// resolve runs a program in a namespace, under a resolv.conf of its own.
func resolve(t *testing.T, netns, resolv string, command, names []string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{
		"--net=" + lab.NetnsPath(netns), "unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`,
		resolv,
	}, append(command, names...)...)
	b, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, b)
	}
	out := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		name, result, _ := strings.Cut(line, " ")
		out[name] = strings.TrimSpace(result)
	}
	return out
}
