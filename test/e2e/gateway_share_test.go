//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
)

// testApplicationsAnswers: what an application answers is no word on whether it can be reached; what its mesh's gateway
// says is.
func (g *gateway) testApplicationsAnswers(t *testing.T) {
	north := g.peers["north"].server
	before := north.seen()
	for n := range 10 {
		a, _ := g.ask(g.caller("web", "p9080.billing"), "GET", "/unwell")
		if a.Code != http.StatusServiceUnavailable || !strings.Contains(a.Body, "north is unwell") {
			t.Fatalf("answer %d: %d %q, want the application's own", n+1, a.Code, a.Body)
		}
	}
	if got := len(north.since(before).Requests); got != 10 {
		t.Errorf("%d of 10 requests reached the peer", got)
	}
	a, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/")
	if err != nil || a.Body != "north\n" {
		t.Errorf("after ten 503s of the application: %q %v", a.Body, err)
	}
	// Nor is the word that a program was reached and did not answer: that is between it and who asked.
	for range 5 {
		g.ask(g.caller("web", "p9080.billing"), "POST", "/unwell?word=begun")
	}
	if a, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/"); err != nil || a.Body != "north\n" {
		t.Errorf("after five requests that came to nothing: %q %v", a.Body, err)
	}
	// Nor is a gateway's word that it reaches nobody: another source is tried, and one that is alone is asked again.
	for range 5 {
		g.ask(g.caller("web", "p9080.billing"), "GET", "/unwell?word=not-begun")
	}
	if a, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/"); err != nil || a.Body != "north\n" {
		t.Errorf("after a gateway's word: %q %v", a.Body, err)
	}
}

// testShares: whoever holds as many connections as it can leaves others their places.
func (g *gateway) testShares(t *testing.T) {
	north, south := g.peers["north"], g.peers["south"]
	c := g.filled(north.client("api"))
	held := hold(t, 3*gwConnections/16, func() (net.Conn, error) {
		conn, err := c.dial()
		if err != nil {
			return nil, err
		}
		return conn, conn.SetDeadline(time.Time{})
	})
	if most := gwConnections / 16; held > most || held < most-10 {
		t.Errorf("one peer holds %d connections on one export, want %d", held, most)
	}
	for what, ask := range map[string]func() error{
		"another peer":            func() error { _, err := g.ask(south.client("api"), "GET", "/south"); return err },
		"the peer's other export": func() error { _, err := g.ask(north.client("open"), "GET", "/"); return err },
		"a caller inside the mesh": func() error {
			_, err := g.ask(g.caller("web", "p9080.billing"), "GET",
				"/")
			return err
		},
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Strangers who never say what they want fill the peers' listener, and the mesh's own callers do not notice.
	strangers := hold(t, 2*gwConnections, func() (net.Conn, error) { return gwDial("192.0.2.77", gwIngress) })
	if most := gwConnections * 3 / 4; strangers > most {
		t.Errorf("strangers hold %d connections, more than %d", strangers, most)
	}
	for range 5 {
		if _, err := g.ask(g.caller("web", "p9080.billing"), "GET", "/"); err != nil {
			t.Errorf("a caller inside the mesh, while strangers hold %d connections: %v", strangers, err)
		}
	}
	// And the administrator is told.
	eventually(t, 20*time.Second, func() error {
		r, err := adminapi.Call[adminapi.Empty, adminapi.CheckResponse](t.Context(), g.admin, "Check",
			&adminapi.Empty{})
		must(t, err)
		for _, c := range r.Checks {
			if c.Name == "proxy edge-1" && c.State == "warning" &&
				strings.Contains(c.Detail, "connections for want of room") {
				return nil
			}
		}
		return fmt.Errorf("check says %+v", r.Checks)
	})
}

// hold opens connections until the test ends, and says how many of them the gateway keeps.
func hold(t *testing.T, n int, open func() (net.Conn, error)) (held int) {
	t.Helper()
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	for range n {
		if c, err := open(); err == nil {
			conns = append(conns, c)
		}
	}
	return len(conns) - closedSoon(conns)
}

// closedSoon is how many of the connections the other side closes within half a second.
func closedSoon(conns []net.Conn) (n int) {
	deadline := time.Now().Add(500 * time.Millisecond)
	closed := make(chan bool, len(conns))
	for _, c := range conns {
		go func() {
			c.SetReadDeadline(deadline)
			_, err := c.Read(make([]byte, 1))
			timeout, ok := err.(net.Error)
			closed <- err != nil && (!ok || !timeout.Timeout())
		}()
	}
	for range conns {
		if <-closed {
			n++
		}
	}
	return n
}
