//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/waittest"
)

// The ports of talk, which speaks nothing but HTTP/2.
const (
	http2Port = 8090
	grpcPort  = 9090

	streamsPort  = 8091 // HTTP/2 with extended CONNECT
	httpGRPCPort = 9091 // gRPC as well, at a port that is declared to be HTTP
)

// muchSent counts what serveHTTP2 got rid of to who asked for much.
var muchSent atomic.Int64

func serveHTTP2(l net.Listener) error {
	s := &http.Server{
		Protocols: new(http.Protocols), ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "much" {
				for text := make([]byte, 64<<10); ; muchSent.Add(1) {
					if _, err := w.Write(text); err != nil {
						return
					}
				}
			}
			w.Header().Set("Trailer", "x-end")
			fmt.Fprint(w, r.Proto)
			w.Header().Set("x-end", "yes")
		}),
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.Serve(l)
}

func serveGRPC(l net.Listener) error {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s.Serve(l)
}

// talk: HTTP/2 and gRPC pass with their streams, trailers and codes, and policies see their methods and paths.
func (s *shop) talk(t *testing.T) {
	t.Run("http2", func(t *testing.T) {
		for _, c := range []struct {
			from, path string
			want       int
		}{{"alice", "/open", 200}, {"alice", "/shut", 403}, {"bob", "/open", 403}} {
			resp, body, err := s.askHTTP2(t, c.from, c.path)
			need(t, err)
			if resp.StatusCode != c.want {
				t.Errorf("%s %s: %d %q, want %d", c.from, c.path, resp.StatusCode, body, c.want)
			}
			if c.want == 200 && (body != "HTTP/2.0" || resp.Trailer.Get("x-end") != "yes") {
				t.Errorf("%s %s: %q, trailer %v", c.from, c.path, body, resp.Trailer)
			}
		}
	})
	t.Run("grpc", func(t *testing.T) {
		for _, c := range []struct {
			from string
			want []codes.Code // of Check, Watch, List
		}{
			{"alice", []codes.Code{codes.OK, codes.OK, codes.PermissionDenied}},
			{"bob", []codes.Code{codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied}},
		} {
			for _, port := range []int{grpcPort, httpGRPCPort} {
				got, err := s.askGRPC(t, c.from, port)
				need(t, err)
				if !slices.Equal(got, c.want) {
					t.Errorf("%s at port %d: %v, want %v", c.from, port, got, c.want)
				}
			}
		}
	})
	t.Run("beside calls that nobody reads", s.besideUnread)
	t.Run("http1 to a server of HTTP/2", func(t *testing.T) {
		need(t, s.expect(200, s.get("alice", fmt.Sprintf("talk:%d", http2Port), "/open")))
	})
}

// besideUnread: calls whose answers nobody reads share connections of Envoys with others, and do not hold them up.
func (s *shop) besideUnread(t *testing.T) {
	address, err := s.to("alice", fmt.Sprintf("talk:%d", http2Port))
	need(t, err)
	const calls = 200
	before := s.envoyMemory(t, "front") + s.envoyMemory(t, "back")
	for range calls {
		c, err := s.dial("alice", address)
		need(t, err)
		defer c.Close()
		need(t, c.(*net.TCPConn).SetReadBuffer(4096))
		_, err = io.WriteString(c, "GET /open?much HTTP/1.1\r\nHost: talk.default\r\n\r\n")
		need(t, err)
	}
	sent := int64(-1)
	within(t, 30*time.Second, "what lies between the server and those who do not read is full", func() error {
		last := sent
		waittest.Quiet(200 * time.Millisecond)
		if sent = muchSent.Load(); sent != last || sent < calls {
			return fmt.Errorf("%d parts were sent, %d before that", sent, last)
		}
		return nil
	})
	grown := s.envoyMemory(t, "front") + s.envoyMemory(t, "back") - before
	t.Logf("%d MiB for %d calls", grown>>20, calls)
	if most := calls * 500 << 10; grown > most {
		t.Errorf("Envoys have grown by %d MiB, more than %d", grown>>20, most>>20)
	}
	for range 40 {
		resp, body, err := s.askHTTP2(t, "alice", "/open")
		need(t, err)
		if resp.StatusCode != 200 || body != "HTTP/2.0" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
	}
}

// askHTTP2 asks with prior knowledge, as a program that was told so does.
func (s *shop) askHTTP2(t *testing.T, from, path string) (*http.Response, string, error) {
	t.Helper()
	address, err := s.to(from, fmt.Sprintf("talk:%d", http2Port))
	need(t, err)
	tr := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial(from, address) },
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	client := http.Client{Transport: tr, Timeout: 3 * time.Second}
	resp, err := client.Get("http://talk.default" + path)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// askGRPC calls once, opens a stream, and calls what no policy lists.
func (s *shop) askGRPC(t *testing.T, from string, port int) ([]codes.Code, error) {
	t.Helper()
	address, err := s.to(from, fmt.Sprintf("talk:%d", port))
	need(t, err)
	conn, err := grpc.NewClient("passthrough:///talk.default", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return s.dial(from, address) }))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	client := healthpb.NewHealthClient(conn)
	_, check := client.Check(ctx, &healthpb.HealthCheckRequest{})
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return nil, err
	}
	said, watch := stream.Recv()
	if watch == nil && said.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return nil, errors.New(said.String())
	}
	_, list := client.List(ctx, &healthpb.HealthListRequest{})
	return []codes.Code{status.Code(check), status.Code(watch), status.Code(list)}, nil
}
