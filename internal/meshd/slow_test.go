package meshd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// mayTake is how long one that sends slowly may hold a connection before it has said who it is.
const mayTake = headerTimeout + 10*time.Second

// Whoever says nothing, or says it byte by byte, is hung up on, on every port.
func TestSlowDrip(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	admin := p.adminCert("alice")
	secure := func(addr, proto string) (net.Conn, error) {
		cfg := p.tlsAs(&admin)
		cfg.NextProtos = []string{proto}
		return tls.Dial("tcp", addr, cfg)
	}
	plain := func(addr string) func() (net.Conn, error) {
		return func() (net.Conn, error) { return net.Dial("tcp", addr) }
	}
	var drips sync.WaitGroup // all at once, not in turn
	request := "GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 1000)
	for what, try := range map[string]struct {
		dial func() (net.Conn, error)
		says string
	}{
		"health, silent": {plain(p.cfg.HealthAddress), ""},
		"health, header": {plain(p.cfg.HealthAddress), request},
		"health, body": {
			plain(p.cfg.HealthAddress),
			"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + request,
		},
		"agents, silent":    {plain(p.cfg.AgentAddress), ""},
		"agents, handshake": {plain(p.cfg.AgentAddress), "\x16\x03\x01\x02\x00" + request},
		"agents, preface": {
			func() (net.Conn, error) { return secure(p.cfg.AgentAddress, "h2") },
			http2.ClientPreface,
		},
		"metrics, handshake": {plain(p.cfg.MetricsAddress), "\x16\x03\x01\x02\x00" + request},
		"metrics, header":    {func() (net.Conn, error) { return secure(p.cfg.MetricsAddress, "http/1.1") }, request},
		"peering, handshake": {plain(p.cfg.PeeringAddress), "\x16\x03\x01\x02\x00" + request},
		"peering, header":    {func() (net.Conn, error) { return secure(p.cfg.PeeringAddress, "http/1.1") }, request},
	} {
		conn, err := try.dial()
		must(t, err)
		defer conn.Close()
		drips.Go(func() {
			begun := time.Now()
			go drip(conn, try.says)
			conn.SetReadDeadline(begun.Add(mayTake))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: still connected after %s", what, time.Since(begun))
			}
		})
	}
	drips.Wait()
}

func drip(conn net.Conn, says string) {
	for i := range len(says) {
		if _, err := conn.Write([]byte{says[i]}); err != nil {
			return
		}
		waittest.Pace(500 * time.Millisecond)
	}
}

// Without a certificate one may only try a token, and not take long over it.
func TestSlowJoin(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	cfg := p.tlsAs(nil)
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", p.cfg.AgentAddress, cfg)
	must(t, err)
	defer conn.Close()
	begun := time.Now()
	f := speakHTTP2(t, conn)
	f.open(1, "/"+agentapi.Service+"/Attest")
	must(t, f.WriteData(1, false, []byte{0, 0, 0, 0x7f, 0, '{'})) // a message of 32 KB, of which one byte comes
	needCertificate := []string{
		"/" + adminapi.Service + "/Status", "/" + agentapi.Service + "/Sign",
		discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
	}
	for i, method := range needCertificate {
		f.open(uint32(3+2*i), method)
		must(t, f.WriteData(uint32(3+2*i), false, []byte{0, 0, 0x3f, 0, 0, '{'}))
	}
	conn.SetReadDeadline(begun.Add(mayTake))
	ended := map[uint32]time.Duration{}
	for len(ended) < 1+len(needCertificate) {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("%v; ended so far: %v", err, ended)
		}
		if h := frame.Header(); h.StreamID != 0 && h.Flags.Has(http2.FlagHeadersEndStream) ||
			h.Type == http2.FrameRSTStream {
			if _, twice := ended[h.StreamID]; !twice {
				ended[h.StreamID] = time.Since(begun)
			}
		}
	}
	for i, method := range needCertificate {
		if took := ended[uint32(3+2*i)]; took > time.Second {
			t.Errorf("%s, which needs a certificate, was refused after %s", method, took)
		}
	}
}

// framer writes raw HTTP/2.
type framer struct {
	*http2.Framer
	t *testing.T
}

func speakHTTP2(t *testing.T, conn net.Conn) framer {
	t.Helper()
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	f := framer{http2.NewFramer(conn, conn), t}
	must(t, f.WriteSettings())
	return f
}

func (f framer) open(stream uint32, path string) {
	f.t.Helper()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":path", path},
		{":authority", "x"},
		{"content-type", "application/grpc+json"},
		{"te", "trailers"},
	} {
		must(f.t, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	must(f.t, f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: []byte(block.String()),
		EndHeaders: true,
	}))
}

// A control plane that has stopped leaves nothing running. Not parallel: it counts.
func TestNothingIsLeftRunning(t *testing.T) {
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	px := ads(t, a.conn, nil)
	px.until("configured", px.hasListener("outbound/default/shop"))
	begun := time.Now()
	must(t, p.stop())
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("stopping took %s", took)
	}
	left := func() string {
		buf := make([]byte, 4<<20)
		var ours []string
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "isthmus/internal/") && !strings.Contains(g, "_test.go") {
				ours = append(ours, g)
			}
		}
		return strings.Join(ours, "\n\n")
	}
	waittest.Within(t, waittest.Patience, "nothing runs any more", func() error {
		if l := left(); l != "" {
			return fmt.Errorf("still running:\n%s", l)
		}
		return nil
	})
	// And it can begin again at once, on the same ports.
	p.start()
	b := p.resume(a.credential)
	b.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	b.instructed("anything", func(*agentapi.Instructions) bool { return true })
}
