//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// rollers serve one name together; their programs are this test's own binary, so that they can be ended.
var rollers = []member{
	{name: "roll-1", app: "roll", namespace: "default", address: "10.93.0.28", ports: []int{8080, http2Port, grpcPort}},
	{name: "roll-2", app: "roll", namespace: "default", address: "10.93.0.29", ports: []int{8080, http2Port, grpcPort}},
}

// rollServices are what rollers serve; anybody may call.
var rollServices = `
apiVersion: v1
kind: Service
metadata: {name: roll, namespace: default}
spec:
  selector: {app: roll}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http2, port: 8090}, {name: grpc, port: 9090}]
` + policy("default", "roll", "selector: {matchLabels: {app: roll}}\nrules: [{}]")

// rollProgram in the environment makes this binary a server: the file to which it appends what has begun there, and its
// name.
const rollProgram = "ISTHMUS_E2E_ROLL"

// serveRolling is the program of a roller, in both versions of HTTP and with gRPC. It writes down each request that has
// an ID before it answers.
func serveRolling(file, name string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	note := func(id string) {
		if id != "" {
			fmt.Fprintln(f, id)
		}
	}
	web := &http.Server{
		Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note(r.Header.Get("x-id"))
			linger(r.Header.Get("x-linger"))
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, name)
		}),
	}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", grpcPort))
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo,
		h grpc.UnaryHandler,
	) (any, error) {
		note(strings.Join(metadata.ValueFromIncomingContext(ctx, "x-id"), ""))
		linger(strings.Join(metadata.ValueFromIncomingContext(ctx, "x-linger"), ""))
		if err := grpc.SetHeader(ctx, metadata.Pairs("x-name", name)); err != nil {
			return nil, err
		}
		return h(ctx, req)
	}))
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
	second, err := net.Listen("tcp", fmt.Sprintf(":%d", http2Port))
	if err != nil {
		return err
	}
	go web.Serve(second)
	web.Addr = ":8080"
	return web.ListenAndServe()
}

// linger as long as the client asks for.
func linger(text string) {
	if d, err := time.ParseDuration(text); err == nil {
		waittest.Pace(d)
	}
}

func (s *shop) startRoller(t *testing.T, m member) *lab.Process {
	t.Helper()
	self, err := os.Executable()
	need(t, err)
	p, err := s.lab.Start(lab.Command{
		Name: m.name, Namespace: s.netns(m.name), Path: self,
		Env: []string{rollProgram + "=" + s.path("begun") + " " + m.name},
	})
	need(t, err)
	within(t, 30*time.Second, m.name+" serves", func() error {
		for _, port := range m.ports {
			c, err := s.dial(m.name, fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
	return p
}

// TestRollingRestarts: two replicas are restarted in turn, each away for a second, twenty times in all, now asked to
// end and now killed. Callers keep their connections. No GET fails, no POST fails that was not sent to a program, and
// none begins twice.
func TestRollingRestarts(t *testing.T) {
	s := openShop(t, shopMesh, map[string][]member{
		"front": append(callers[:len(callers):len(callers)], rollers[0]),
		"back":  append(servers[:len(servers):len(servers)], rollers[1]),
	})
	s.write(t, "roll.yaml", rollServices)
	programs := []*lab.Process{s.startRoller(t, rollers[0]), s.startRoller(t, rollers[1])}
	asks := map[string]rollAsker{}
	for what, port := range map[string]string{"HTTP/1.1": "80", "HTTP/2": "8090"} {
		asks[what] = s.askRollers(t, what, port)
	}
	asks["gRPC"] = s.callRollers(t)
	for what, ask := range asks {
		within(t, 30*time.Second, what+" is served by both in turn", func() error { return byBoth(t, ask) })
	}
	var wg sync.WaitGroup
	var stopped atomic.Bool
	var mu sync.Mutex
	failed := map[string]error{} // POSTs, by ID
	sent := map[string]int{}
	for what, ask := range asks {
		for worker := range 4 {
			wg.Go(func() {
				for n := 0; !stopped.Load(); n++ {
					id := fmt.Sprintf("%s/%d/%d", what, worker, n)
					_, get := ask(t.Context(), "GET", "")
					_, post := ask(t.Context(), "POST", id)
					mu.Lock()
					sent[what] += 2
					if get != nil {
						t.Errorf("%s GET at %s: %v", what, time.Now().Format(time.StampMilli), get)
					}
					if post != nil {
						failed[id] = post
					}
					mu.Unlock()
					waittest.Pace(20 * time.Millisecond)
				}
			})
		}
	}
	for n := range 20 {
		which := n % 2
		if n/2%2 == 0 {
			programs[which].Stop(10 * time.Second)
		} else {
			programs[which].Kill()
		}
		waittest.Pace(time.Second)
		programs[which] = s.startRoller(t, rollers[which])
		waittest.Pace(200 * time.Millisecond) // a call that met this one before must not meet the next one after
	}
	stopped.Store(true)
	wg.Wait()
	text, err := os.ReadFile(s.path("begun"))
	need(t, err)
	begun := map[string]int{}
	for _, id := range strings.Fields(string(text)) {
		if begun[id]++; begun[id] > 1 && id != "first" {
			t.Errorf("%s began %d times", id, begun[id])
		}
	}
	for id, err := range failed {
		// What a program has been sent when it dies it may have begun, whether or not it has.
		if begun[id] == 0 && !strings.Contains(err.Error(), "may have begun this request") {
			t.Errorf("%s had not begun: %v", id, err)
		}
	}
	t.Logf("%v sent, %d of those that a program had been sent failed", sent, len(failed))
	for what := range asks {
		if sent[what] < 400 {
			t.Errorf("only %d requests of %s", sent[what], what)
		}
	}
	t.Run("2,000 at once", s.manyAtOnce)
}

// lingering, in a rollAsker's context, is how long its program takes to answer.
type lingering struct{}

// rollAsker sends a request and says who answered it.
type rollAsker func(ctx context.Context, method, id string) (string, error)

// askRollers asks over connections that are kept.
func (s *shop) askRollers(t *testing.T, version, port string) rollAsker {
	t.Helper()
	tr := &http.Transport{
		Protocols: new(http.Protocols), MaxIdleConnsPerHost: 8,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dialRollers(port) },
	}
	tr.Protocols.SetHTTP1(version == "HTTP/1.1")
	tr.Protocols.SetUnencryptedHTTP2(version == "HTTP/2")
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	return func(ctx context.Context, method, id string) (string, error) {
		var body io.Reader
		if method == "POST" {
			body = io.MultiReader(bytes.NewReader(make([]byte, 1000))) // which the client itself cannot send again
		}
		req, err := http.NewRequestWithContext(ctx, method, "http://roll.default/", body)
		if err != nil {
			return "", err
		}
		req.Header.Set("x-id", id)
		if d, ok := ctx.Value(lingering{}).(string); ok {
			req.Header.Set("x-linger", d)
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%d %s", resp.StatusCode, text)
			client.CloseIdleConnections()
		}
		return string(text), err
	}
}

func (s *shop) dialRollers(port string) (net.Conn, error) {
	address, err := s.to("alice", "roll:"+port)
	if err != nil {
		return nil, err
	}
	return s.dial("alice", address)
}

// callRollers calls by gRPC, whose requests are all POSTs.
func (s *shop) callRollers(t *testing.T) rollAsker {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///roll.default", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn,
			error,
		) {
			return s.dialRollers(fmt.Sprint(grpcPort))
		}))
	need(t, err)
	t.Cleanup(func() { conn.Close() })
	client := healthpb.NewHealthClient(conn)
	return func(ctx context.Context, method, id string) (string, error) {
		if method == "GET" && id == "" {
			return "", nil
		}
		if d, ok := ctx.Value(lingering{}).(string); ok {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-linger", d)
		}
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "x-id", id), 30*time.Second)
		defer cancel()
		var header metadata.MD
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header))
		return strings.Join(header["x-name"], ""), err
	}
}

// rollingProgram runs a roller's program if this process is one.
func rollingProgram() {
	if file, name, ok := strings.Cut(os.Getenv(rollProgram), " "); ok {
		fmt.Fprintln(os.Stderr, serveRolling(file, name))
		syscall.Exit(1)
	}
}

// manyAtOnce: two thousand connections open together on a machine that has other things to do, and each request is
// answered. Every one of them may need a handshake of its own.
func (s *shop) manyAtOnce(t *testing.T) {
	const many = 2000
	var busy atomic.Bool
	busy.Store(true)
	defer busy.Store(false)
	for range runtime.NumCPU() {
		go func() {
			for busy.Load() {
				sha256.Sum256(make([]byte, 4096))
			}
		}()
	}
	address, err := s.to("alice", "roll:80")
	need(t, err)
	var open, done sync.WaitGroup
	var mu sync.Mutex
	failed := map[string]int{}
	some := make(chan struct{}, 64)
	open.Add(many)
	for range many {
		done.Go(func() {
			fail := func(err error) {
				if err == nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				failed[err.Error()]++
			}
			some <- struct{}{}
			var c net.Conn
			err := lab.Inside(s.netns("alice"), func() (err error) {
				c, err = net.DialTimeout("tcp", address, time.Minute)
				return err
			})
			<-some
			open.Done()
			if err != nil {
				fail(err)
				return
			}
			defer c.Close()
			open.Wait() // all ask at once
			fail(ask(c))
		})
	}
	done.Wait()
	for what, n := range failed {
		t.Errorf("%d of %d: %s", n, many, what)
	}
}

// ask sends one request, whose answer may take its time.
func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: roll\r\n\r\n"); err != nil {
		return errors.New("the request is not taken") // whose connection it is makes no difference
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return errors.New("no answer")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
