package federation

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ways are the gateways of a mesh, each with what it does when it is asked for a name.
type ways struct {
	mu    sync.Mutex // guards all
	names []string
	do    map[string]func(ctx context.Context) (net.Conn, error)
	asked []string
}

func (w *ways) gateways() (out []Gateway) {
	for _, name := range w.names {
		out = append(out, Gateway{Name: name, Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			w.mu.Lock()
			w.asked = append(w.asked, name)
			do := w.do[name]
			w.mu.Unlock()
			return do(ctx)
		}})
	}
	return out
}

func (w *ways) set(name string, do func(ctx context.Context) (net.Conn, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.do[name] = do
}

// took is who was asked since the last call.
func (w *ways) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

func leads(context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	go b.Close()
	return a, nil
}

func swallows(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func refuses(context.Context) (net.Conn, error) { return nil, errors.New("connection refused") }

func service(t *testing.T, w *ways) *Service {
	t.Helper()
	m := newMesh(t, &network{where: map[string]string{}}, "cards", "192.0.2.1",
		func(_ *mesh, c *Config) { c.Gateways = w.gateways })
	return m.Service
}

// One gateway that swallows what is sent to it, and sorts first, keeps nothing from another that stands beside it, and
// is not tried first again.
func TestASilentGatewayStopsNothing(t *testing.T) {
	w := &ways{
		names: []string{"a", "b"},
		do:    map[string]func(context.Context) (net.Conn, error){"a": swallows, "b": leads},
	}
	s := service(t, w)
	a, err := s.dialThrough(t.Context(), "control.retail", plainConn)
	if err != nil || a.gateway != "b" {
		t.Fatalf("by %q: %v", a.gateway, err)
	}
	a.conn.Close()
	if got := w.took(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("asked %v", got)
	}
	for _, name := range []string{"control.retail", "control.bank", "probe.bank", "bootstrap.00"} {
		a, err := s.dialThrough(t.Context(), name, plainConn)
		if err != nil || a.gateway != "b" {
			t.Fatalf("%s by %q: %v", name, a.gateway, err)
		}
		a.conn.Close()
		if got := w.took(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("%s: asked %v, though a did not answer a moment ago", name, got)
		}
	}
	w.set("a", leads)
	w.set("b", refuses)
	if a, err = s.dialThrough(t.Context(), "control.retail", plainConn); err != nil || a.gateway != "a" {
		t.Fatalf("after they changed places, by %q: %v", a.gateway, err)
	}
	a.conn.Close()
	w.took()
	w.set("b", leads)
	if a, err = s.dialThrough(t.Context(), "control.retail", plainConn); err != nil || a.gateway != "a" {
		t.Fatalf("who led there last is asked first, but it was %q: %v", a.gateway, err)
	}
	a.conn.Close()
}

// What counts is that a gateway leads there, not that it answers.
func TestAGatewayThatLeadsNowhereStopsNothing(t *testing.T) {
	w := &ways{
		names: []string{"a", "b"},
		do:    map[string]func(context.Context) (net.Conn, error){"a": leads, "b": leads},
	}
	s := service(t, w)
	tried := make(chan string, 8)
	for name, first := range map[string]func(ctx context.Context) error{
		"it hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"it ends":  func(context.Context) error { return errors.New("EOF") },
	} {
		n := make(chan int, 1)
		n <- 0
		a, err := s.dialThrough(t.Context(), "control."+name,
			func(ctx context.Context, raw net.Conn) (net.Conn, error) {
				k := <-n
				n <- k + 1
				if k > 0 {
					return raw, nil
				}
				raw.Close()
				return nil, first(ctx)
			})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a.conn.Close()
		tried <- a.gateway
		if got := w.took(); len(got) != 2 {
			t.Errorf("%s: asked %v", name, got)
		}
		again, err := s.dialThrough(t.Context(), "control."+name, plainConn)
		if err != nil || again.gateway != a.gateway {
			t.Errorf("%s: by %q at first and %q then: %v", name, a.gateway, again.gateway, err)
		}
		again.conn.Close()
		w.took()
	}
}

// A finding that somebody is not who they should be ends it: no other gateway is asked.
func TestWhatIsFinalEndsIt(t *testing.T) {
	w := &ways{
		names: []string{"a", "b"},
		do:    map[string]func(context.Context) (net.Conn, error){"a": leads, "b": leads},
	}
	s := service(t, w)
	_, err := s.dialThrough(t.Context(), "bootstrap.1", func(_ context.Context, raw net.Conn) (net.Conn, error) {
		raw.Close()
		return nil, finalError{errors.New("another root")}
	})
	if !isFinal(err) {
		t.Fatal(err)
	}
	if got := w.took(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("asked %v", got)
	}
}

func TestNoGatewayLeadsThere(t *testing.T) {
	w := &ways{do: map[string]func(context.Context) (net.Conn, error){"a": refuses, "b": refuses}}
	s := service(t, w)
	if _, err := s.dialThrough(t.Context(), "control.retail", plainConn); !errors.Is(err, errNoGateway) {
		t.Error(err)
	}
	w.names = []string{"a", "b"}
	a, err := s.dialThrough(t.Context(), "control.retail", plainConn)
	if err == nil || a.conn != nil || !IsGatewaySilent(err) {
		t.Fatal(err)
	}
	const want = "reach own gateway a: connection refused\nreach own gateway b: connection refused"
	if err.Error() != want {
		t.Errorf("got %q", err)
	}
}

// What comes late is closed.
func TestLateConnectionsAreClosed(t *testing.T) {
	late, closed := make(chan struct{}), make(chan struct{})
	w := &ways{names: []string{"a", "b"}, do: map[string]func(context.Context) (net.Conn, error){
		"a": func(context.Context) (net.Conn, error) {
			<-late
			return closing{closed: closed}, nil
		},
		"b": leads,
	}}
	s := service(t, w)
	a, err := s.dialThrough(t.Context(), "control.retail", plainConn)
	if err != nil || a.gateway != "b" {
		t.Fatalf("by %q: %v", a.gateway, err)
	}
	a.conn.Close()
	close(late)
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the connection that came late stays open")
	}
}

type closing struct {
	net.Conn
	closed chan struct{}
}

func (c closing) Close() error {
	close(c.closed)
	return nil
}

// mute carries a greeting and nothing after it, as a stolen gateway can.
type mute struct {
	net.Conn
	wrote *atomic.Int32
}

func (m mute) Write(p []byte) (int, error) {
	if m.wrote.Add(1) > 2 { // of TLS 1.3 a client's hello and the end of its handshake
		m.Conn.Close()
		return 0, net.ErrClosed
	}
	return m.Conn.Write(p)
}

// A gateway that leads there, and then carries nothing, is not asked again while there is another, though it is the
// quickest.
func TestAGatewayThatCarriesAGreetingAloneStopsNothing(t *testing.T) {
	n := &network{where: map[string]string{}}
	w := &ways{names: []string{"a", "b"}, do: map[string]func(context.Context) (net.Conn, error){"a": refuses}}
	cards := newMesh(t, n, "cards", "192.0.2.1")
	retail := newMesh(t, n, "retail", "192.0.2.2", func(m *mesh, c *Config) {
		c.Gateways = func() []Gateway {
			gateways := w.gateways()
			gateways[1].Dial = m.dialGateway
			return gateways
		}
	})
	join(t, cards, retail)
	greets := func(ctx context.Context) (net.Conn, error) {
		raw, err := retail.dialGateway(ctx, "control.cards")
		return mute{raw, new(atomic.Int32)}, err
	}
	w.set("a", greets)
	retail.memory.recordSuccess("control.cards", "a", nil, retail.now()) // the quickest so far
	if _, err := retail.fetchBundle(t.Context(), retail.meshPeer("cards")); err == nil {
		t.Error("the gateway has carried something")
	}
	for n := range 3 {
		if _, err := retail.fetchBundle(t.Context(), retail.meshPeer("cards")); err != nil {
			t.Errorf("question %d: %v", n, err)
		}
	}
	retail.skip(2 * suspicion)
	retail.memory.recordSuccess("control.cards", "a", nil, retail.now())
	if order, _ := retail.memory.order(retail.Gateways(), "control.cards", retail.now()); order[0].Name != "a" {
		t.Errorf("it is suspected for ever: %v", order)
	}
}
