package load

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

func TestHistogramIsRightToOnePercent(t *testing.T) {
	var h, half Histogram
	for i := 1; i <= 50000; i++ {
		h.Add(time.Duration(i) * time.Microsecond)
	}
	for i := 50001; i <= 100000; i++ {
		half.Add(time.Duration(i) * time.Microsecond)
	}
	h.Merge(&half)
	if h.Count() != 100000 || h.Max() != 100*time.Millisecond {
		t.Errorf("%d counted, longest %v", h.Count(), h.Max())
	}
	for q, want := range map[float64]time.Duration{
		0.5: 50 * time.Millisecond, 0.99: 99 * time.Millisecond, 0.999: 99900 * time.Microsecond,
		1: 100 * time.Millisecond,
	} {
		got := h.Quantile(q)
		if diff := float64(got-want) / float64(want); diff < -0.01 || diff > 0.01 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := new(Histogram).Quantile(0.5); got != 0 {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestBucketsHoldTheirValues(t *testing.T) {
	for range 10000 {
		v := rand.Uint64() >> rand.IntN(63) >> 1
		i := bucket(v)
		if v > upperBound(i) || (i > 0 && v <= upperBound(i-1)) {
			t.Fatalf("%d is in bucket %d, which is (%d, %d]", v, i, upperBound(i-1), upperBound(i))
		}
	}
}

// stalling answers at once, except that its nth call takes long.
type stalling struct {
	calls, at int
	stall     time.Duration
}

func (s *stalling) Close() error { return nil }

func (s *stalling) Call() error {
	if s.calls++; s.calls == s.at {
		waittest.Pace(s.stall)
	}
	return nil
}

func TestOpenLoopCountsWhatAStallDelays(t *testing.T) {
	cfg := Config{
		Connections: 1, Duration: 500 * time.Millisecond, Rate: 1000,
		Dial: func(context.Context) (Caller, error) { return &stalling{at: 100, stall: 200 * time.Millisecond}, nil },
	}
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Latency.Count() != 500 || r.Errors != 0 {
		t.Errorf("%d calls and %d errors, want 500 and 0", r.Latency.Count(), r.Errors)
	}
	// The 200 calls due in the stall waited 100 ms on average: more than a third of all waited over 20 ms.
	if got := r.Latency.Quantile(0.65); got < 20*time.Millisecond {
		t.Errorf("the 65th percentile is %v: the stall was hidden", got)
	}
	closed, err := Closed(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := closed.Latency.Quantile(0.65); got > time.Millisecond {
		t.Errorf("the closed loop, which hides stalls by its nature, has %v", got)
	}
}

func TestWarmUpAndErrors(t *testing.T) {
	dials := 0
	r, err := Open(t.Context(), Config{
		Connections: 1, Duration: 100 * time.Millisecond, WarmUp: 100 * time.Millisecond, Rate: 100,
		Dial: func(context.Context) (Caller, error) {
			dials++
			return failing{}, nil
		},
	})
	if err != nil || r.Errors != 10 || r.Latency.Count() != 0 || r.First == nil {
		t.Errorf("%+v errors, %v; want the 10 after the warm-up", r.Errors, err)
	}
	if dials != 20 {
		t.Errorf("%d dials, want one before each of 20 calls", dials)
	}
}

type failing struct{}

func (failing) Call() error  { return errors.New("no") }
func (failing) Close() error { return nil }

func TestCallers(t *testing.T) {
	body, dial := strings.Repeat("x", 1024), new(net.Dialer)
	web := &http.Server{
		Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "refused.example" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			if r.Method == http.MethodPost {
				w.Header().Set("trailer", "grpc-status")
				io.Copy(w, r.Body)
				w.Header().Set("grpc-status", "0")
				return
			}
			io.WriteString(w, body)
		}),
	}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	webAt, echoAt := listen(t), listen(t)
	go web.Serve(webAt)
	t.Cleanup(func() { web.Close() })
	go func() {
		for {
			c, err := echoAt.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	tcpDial := func(ctx context.Context, a string) (net.Conn, error) { return dial.DialContext(ctx, "tcp", a) }
	for name, open := range map[string]func(host string) (Caller, error){
		"HTTP1": func(h string) (Caller, error) { return HTTP1(t.Context(), tcpDial, webAt.Addr().String(), h) },
		"HTTP2": func(h string) (Caller, error) { return HTTP2(t.Context(), tcpDial, webAt.Addr().String(), h) },
		"GRPC":  func(h string) (Caller, error) { return GRPC(t.Context(), tcpDial, webAt.Addr().String(), h, 1024) },
		"TCP":   func(string) (Caller, error) { return TCP(t.Context(), tcpDial, echoAt.Addr().String(), 1024) },
	} {
		c, err := open("server.example")
		if err != nil {
			t.Fatal(name, err)
		}
		for range 3 {
			if err := c.Call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.Close()
		if name == "TCP" {
			continue
		}
		c, err = open("refused.example")
		if err != nil {
			t.Fatal(name, err)
		}
		if err := c.Call(); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: a refusal gave %v", name, err)
		}
		c.Close()
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
