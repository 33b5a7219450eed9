//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestLeaving: one of two nodes that serve a name is told to stop, while callers ask on connections that they keep. It
// ends within seconds, and no request fails, POSTs included.
func TestLeaving(t *testing.T) {
	s := openShop(t, shopMesh, map[string][]member{
		"front": append(callers[:len(callers):len(callers)], rollers[0]),
		"back":  append(servers[:len(servers):len(servers)], idlers...), "leaver": {rollers[1]},
	})
	s.write(t, "roll.yaml", rollServices)
	for _, m := range rollers {
		s.startRoller(t, m)
	}
	t.Run("idle programs", s.idlePrograms)
	asks := map[string]rollAsker{
		"HTTP/1.1": s.askRollers(t, "HTTP/1.1", "80"),
		"HTTP/2":   s.askRollers(t, "HTTP/2", "8090"), "gRPC": s.callRollers(t),
	}
	for what, ask := range asks {
		within(t, 30*time.Second, what+" is served by both in turn", func() error { return byBoth(t, ask) })
	}
	var wg sync.WaitGroup
	var stopped atomic.Bool
	var sent atomic.Int64
	soon, late := context.WithValue(t.Context(), lingering{}, "20ms"),
		context.WithValue(t.Context(), lingering{}, "2500ms")
	for what, ask := range asks {
		for worker := range 4 {
			wg.Go(func() {
				for n := 0; !stopped.Load(); n++ {
					for _, method := range []string{"GET", "POST"} {
						if _, err := ask(soon, method, fmt.Sprintf("%s/%d/%d", what, worker, n)); err != nil {
							t.Errorf("%s %s at %s: %v", what, method, time.Now().Format(time.StampMilli), err)
						}
						sent.Add(1)
					}
					waittest.Pace(5 * time.Millisecond)
				}
			})
		}
	}
	waittest.Quiet(time.Second)
	for what, ask := range asks { // some of these are under way at the node that leaves
		for n := range 6 {
			wg.Go(func() {
				if _, err := ask(late, "POST", fmt.Sprintf("%s/late/%d", what, n)); err != nil {
					t.Errorf("%s POST that takes its time: %v", what, err)
				}
			})
		}
	}
	waittest.Quiet(200 * time.Millisecond)
	began, before := time.Now(), sent.Load()
	s.procs["leaver"].Stop(20 * time.Second)
	took := time.Since(began)
	waittest.Quiet(time.Second)
	stopped.Store(true)
	wg.Wait()
	t.Logf("the node left within %s; %d requests, %d of them meanwhile", took.Round(time.Millisecond), sent.Load(),
		sent.Load()-before)
	if took > 15*time.Second {
		t.Errorf("it took %s to leave", took)
	}
	if n := sent.Load() - before; n < 100 {
		t.Errorf("only %d requests since it was told to stop", n)
	}
	need(t, s.envoyGone("leaver"))
}

// envoyGone says whether a node's Envoy has ended.
func (s *shop) envoyGone(node string) error {
	text, err := os.ReadFile(s.path(node, "run", "envoy.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err == nil && syscall.Kill(pid, 0) == nil {
		err = fmt.Errorf("Envoy %d lives", pid)
	}
	return err
}

// idlers run programs that close the connections which they keep, each at a port of its own.
var idlers = []member{{
	name: "idle", namespace: "default", address: "10.93.0.30",
	ports: []int{8101, 8102, 8103, 8104, 8105},
}}

// idleProgram in the environment makes this binary such a program: its port, how long it keeps a connection, and after
// how many requests it closes one, having said so.
const idleProgram = "ISTHMUS_E2E_IDLE"

func idlingProgram() {
	var port, ms, requests int
	if _, err := fmt.Sscan(os.Getenv(idleProgram), &port, &ms, &requests); err != nil {
		return
	}
	var mu sync.Mutex
	answered := map[string]int{}
	s := &http.Server{Addr: fmt.Sprintf(":%d", port), IdleTimeout: time.Duration(ms) * time.Millisecond}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		answered[r.RemoteAddr]++
		if requests > 0 && answered[r.RemoteAddr] == requests {
			w.Header().Set("Connection", "close")
			delete(answered, r.RemoteAddr)
		}
		mu.Unlock()
		io.Copy(io.Discard, r.Body)
	})
	fmt.Fprintln(os.Stderr, s.ListenAndServe())
	syscall.Exit(1)
}

const (
	idlePython = `
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 1
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), H).serve_forever()`
	idleNode = `
const s = require("http").createServer((q, r) => { q.resume(); q.on("end", () => r.end()) });
s.keepAliveTimeout = 1000; s.listen(+process.argv[1], "0.0.0.0")`
)

// idlePrograms: programs close connections that carry nothing, and POSTs that are sent right then, or a little before
// or after, do not meet that. A client sends each when the last one has been answered for about as long as its program
// keeps a connection.
func (s *shop) idlePrograms(t *testing.T) {
	self, err := os.Executable()
	need(t, err)
	services := "apiVersion: v1\nkind: Service\nmetadata: {name: idle, namespace: default}\nspec:\n  selector: {app: idle}\n  ports:\n"
	var wg sync.WaitGroup
	for n, p := range []struct {
		what  string
		keeps time.Duration
		run   func(port int) lab.Command
	}{
		{"net/http, 1 s", time.Second, func(port int) lab.Command {
			return lab.Command{Path: self, Env: []string{fmt.Sprintf("%s=%d 1000 0", idleProgram, port)}}
		}},
		{"net/http, 0.3 s", 300 * time.Millisecond, func(port int) lab.Command {
			return lab.Command{Path: self, Env: []string{fmt.Sprintf("%s=%d 300 0", idleProgram, port)}}
		}},
		{"net/http, every third answer is the last", 0, func(port int) lab.Command {
			return lab.Command{Path: self, Env: []string{fmt.Sprintf("%s=%d 60000 3", idleProgram, port)}}
		}},
		{"Python", time.Second, func(port int) lab.Command {
			return lab.Command{Path: "python3", Args: []string{"-c", idlePython, fmt.Sprint(port)}}
		}},
		{"Node.js", time.Second, func(port int) lab.Command {
			return lab.Command{Path: "node", Args: []string{"-e", idleNode, fmt.Sprint(port)}}
		}},
	} {
		port := idlers[0].ports[n]
		services += fmt.Sprintf("  - {name: http-%[1]d, port: %[1]d}\n", port)
		c := p.run(port)
		if c.Path, err = exec.LookPath(c.Path); err != nil {
			t.Logf("%s is not here", p.what)
			continue
		}
		c.Name, c.Namespace = fmt.Sprintf("idle-%d", port), s.netns("idle")
		_, err := s.lab.Start(c)
		need(t, err)
		for range 4 {
			wg.Go(func() { s.postsAround(t, p.what, port, p.keeps) })
		}
	}
	s.write(t, "idle.yaml", services+policy("default", "idle", "selector: {matchLabels: {app: idle}}\nrules: [{}]"))
	wg.Wait()
}

func (s *shop) postsAround(t *testing.T, what string, port int, keeps time.Duration) {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		address, err := s.to("alice", fmt.Sprintf("idle:%d", port))
		if err != nil {
			return nil, err
		}
		return s.dial("alice", address)
	}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 20 * time.Second}
	post := func() error {
		resp, err := client.Post("http://idle.default/", "text/plain", bytes.NewReader([]byte("once")))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%d %s", resp.StatusCode, text)
		}
		return err
	}
	within(t, waittest.Patience, what, post)
	const posts = 25
	failed := 0
	for n := range posts {
		if err := post(); err != nil {
			failed++
			t.Errorf("%s: POST %d: %v", what, n, err)
		}
		waittest.Pace(max(keeps+time.Duration(n-posts/2)*200*time.Microsecond, 0))
	}
	t.Logf("%s: %d of %d POSTs failed", what, failed, posts)
}
