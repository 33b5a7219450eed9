//go:build e2e

package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/waittest"
)

// testCut: what ends a peering cuts what is connected within 5 seconds, and nobody else's connections.
func (g *gateway) testCut(t *testing.T) {
	watch := func(peer string, more ...string) map[string]*live {
		all := map[string]*live{}
		for name, c := range map[string]gwCaller{
			"in, idle":      g.peers[peer].client("api"),
			"in, streaming": g.peers[peer].client("open"),
			"in, upgraded":  g.peers[peer].client("open"), "out, upgraded": g.caller("web", "p80."+peer),
			"in, raw":   g.peers[peer].client("raw"),
			"out, idle": g.caller("web", "p80."+peer), "out, streaming": g.caller("web", "p80."+peer),
			"out, raw": g.caller("web", "p7100."+peer+"-raw"),
		} {
			if strings.HasPrefix(name, "in, ") && c.sni == g.peers[peer].client("open").sni && peer != "north" {
				c = g.peers[peer].client("api")
			}
			all[peer+", "+name] = connectLive(t, g.filled(c), name[strings.Index(name, " ")+1:])
		}
		for _, name := range more {
			kind := "idle"
			switch {
			case strings.Contains(name, "raw"):
				kind = "raw"
			case strings.HasSuffix(name, "streaming"):
				name, kind = strings.TrimSuffix(name, " streaming"), "streaming"
			}
			all[peer+", "+name+", "+kind] = connectLive(t, g.caller("web", name), kind)
		}
		return all
	}
	north := watch("north")
	for _, c := range []struct {
		peer string
		live map[string]*live
		end  func(t *testing.T, p *gwPeer)
	}{
		{"east", watch("east", "p7100.mixed-raw", "p80.mixed streaming"), func(t *testing.T, p *gwPeer) {
			_, err := adminapi.Call[adminapi.PeerRequest, adminapi.Empty](t.Context(), g.admin, "PeerSuspend",
				&adminapi.PeerRequest{Peer: "east"})
			must(t, err)
		}},
		{"west", watch("west"), func(t *testing.T, p *gwPeer) { must(t, os.Remove(gwDir+"/config/peer-west.yaml")) }},
		{"stale", watch("stale"), func(t *testing.T, p *gwPeer) {
			o := p.object.DeepCopy()
			o.Spec.MaxBundleAge = &metav1.Duration{Duration: time.Second}
			g.write(t, "config/peer-stale.yaml", o)
		}},
	} {
		t.Run(c.peer, func(t *testing.T) {
			p := g.peers[c.peer]
			for name, l := range c.live {
				if err := l.works(); err != nil {
					t.Fatalf("%s, before: %v", name, err)
				}
			}
			began := time.Now()
			c.end(t, p)
			var all sync.WaitGroup
			for name, l := range c.live {
				all.Go(func() {
					if took, err := l.cut(began.Add(5 * time.Second)); err != nil {
						t.Errorf("%s: %v", name, err)
					} else {
						t.Logf("%s: cut after %v", name, took.Sub(began).Round(10*time.Millisecond))
					}
				})
			}
			all.Wait()
			for name, again := range map[string]gwCaller{
				"in": p.client("api"), "in, raw": p.client("raw"), "out": g.caller("web", "p80."+c.peer),
				"out, raw": g.caller("web", "p7100."+c.peer+"-raw"),
			} {
				if err := g.refused(again); err != nil {
					t.Errorf("%s, a new connection: %v", name, err)
				}
			}
			for name, l := range north {
				if err := l.works(); err != nil {
					t.Errorf("%s did not stay: %v", name, err)
				}
			}
		})
	}
	t.Run("the others of a mixed import go on", func(t *testing.T) {
		if a, err := g.ask(g.caller("web", "p80.mixed"), "GET", "/"); err != nil || a.Body != "north\n" {
			t.Errorf("%+v %v", a, err)
		}
	})
	t.Run("resumed", func(t *testing.T) {
		_, err := adminapi.Call[adminapi.PeerRequest, adminapi.Empty](t.Context(), g.admin, "PeerResume",
			&adminapi.PeerRequest{Peer: "east"})
		must(t, err)
		eventually(t, 5*time.Second, func() error {
			_, err := g.ask(g.peers["east"].client("api"), "GET", "/")
			return err
		})
		for name, l := range north {
			if err := l.works(); err != nil {
				t.Errorf("%s did not stay: %v", name, err)
			}
		}
	})
}

// live is a connection that is kept: idle between requests, in the middle of an endless request, or raw.
type live struct {
	kind, host, caller string
	conn               *tls.Conn
	r                  *bufio.Reader
}

func connectLive(t *testing.T, c gwCaller, kind string) *live {
	t.Helper()
	conn, err := c.dial()
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Time{}))
	l := &live{kind: kind, host: c.hostName(), conn: conn, r: bufio.NewReader(conn)}
	if len(c.asserts) > 0 {
		l.caller = "isthmus-caller: " + c.asserts[0] + "\r\n"
	}
	switch kind {
	case "raw":
		var banner string
		if banner, err = l.r.ReadString('\n'); strings.Contains(c.sni, "mixed") && !strings.Contains(banner, "east") {
			return another(t, l, c)
		}
	case "upgraded":
		fmt.Fprintf(conn, "GET /upgrade HTTP/1.1\r\nHost: %s\r\n%sConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
			l.host, l.caller)
		_, err = l.until("HTTP/1.1 101")
	case "streaming":
		fmt.Fprintf(conn, "POST /stream HTTP/1.1\r\nHost: %s\r\n%sTransfer-Encoding: chunked\r\n\r\n", l.host, l.caller)
		var line string
		if line, err = l.until(" lives"); strings.Contains(c.sni, "mixed") && !strings.Contains(line, "east") {
			return another(t, l, c)
		}
	}
	must(t, err)
	must(t, l.works())
	return l
}

// another connection instead of one to the peer that serves one call of a thousand, and all while the other one is out.
func another(t *testing.T, l *live, c gwCaller) *live {
	t.Helper()
	l.conn.Close()
	waittest.Pace(100 * time.Millisecond)
	return connectLive(t, c, l.kind)
}

// until reads lines until one holds text, and is that line.
func (l *live) until(text string) (string, error) {
	l.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	defer l.conn.SetReadDeadline(time.Time{})
	for {
		line, err := l.r.ReadString('\n')
		if err != nil || strings.Contains(line, text) {
			return line, err
		}
		if strings.HasPrefix(line, "HTTP/1.1 ") && !strings.HasPrefix(line, "HTTP/1.1 200") {
			return line, errors.New(strings.TrimSpace(line))
		}
	}
}

// works says whether something still goes there and comes back.
func (l *live) works() error {
	var err error
	switch l.kind {
	case "raw", "upgraded":
		if _, err = io.WriteString(l.conn, "echo\n"); err == nil {
			_, err = l.until("echo")
		}
	case "streaming":
		if _, err = io.WriteString(l.conn, "4\r\nmore\r\n"); err == nil {
			_, err = l.until("lives")
		}
	default:
		if _, err = fmt.Fprintf(l.conn, "GET /public HTTP/1.1\r\nHost: %s\r\n%s\r\n", l.host, l.caller); err == nil {
			if _, err = l.until("\r\n"); err == nil {
				_, err = l.rest()
			}
		}
	}
	return err
}

// rest reads the answer's remaining head and its body, which is chunked or has a length.
func (l *live) rest() (string, error) {
	l.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	defer l.conn.SetReadDeadline(time.Time{})
	length := 0
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		fmt.Sscanf(strings.ToLower(line), "content-length: %d", &length)
		if line == "\r\n" {
			break
		}
	}
	b := make([]byte, length)
	_, err := io.ReadFull(l.r, b)
	return string(b), err
}

// cut waits until the connection ends, and says when it did.
func (l *live) cut(deadline time.Time) (time.Time, error) {
	l.conn.SetReadDeadline(deadline)
	for {
		if _, err := l.r.ReadByte(); err != nil {
			if isTimedOut(err) {
				return time.Time{}, errors.New("still connected")
			}
			return time.Now(), nil
		}
	}
}
