//go:build e2e

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// masks are ways, by the peer that takes it, to answer at a peer's address without being that peer's gateway.
func (g *gateway) masks(t *testing.T) map[string]func(p *gwPeer) (conf *tls.Config, plain bool) {
	north := g.peers["north"]
	return map[string]func(p *gwPeer) (conf *tls.Config, plain bool){
		"imposter": func(p *gwPeer) (*tls.Config, bool) { // another workload of the right mesh
			return p.serverTLS(p.ca.leaf(t, "spiffe://imposter.example/ns/default/sa/web")), false
		},
		// another peer's gateway
		"borrower": func(p *gwPeer) (*tls.Config, bool) { return p.serverTLS(north.own), false },
		"expired": func(p *gwPeer) (*tls.Config, bool) {
			return p.serverTLS(p.ca.leaf(t, p.gatewayID(), expired)),
				false
		},
		"future": func(p *gwPeer) (*tls.Config, bool) {
			return p.serverTLS(p.ca.leaf(t, p.gatewayID(), future)),
				false
		},
		"unknown": func(p *gwPeer) (*tls.Config, bool) {
			return p.serverTLS(newGwCA(t, "unknown").leaf(t, p.gatewayID())), false
		},
		"old": func(p *gwPeer) (*tls.Config, bool) {
			conf := p.serverTLS(p.own)
			conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return conf, false
		},
		"plain": func(*gwPeer) (*tls.Config, bool) { return nil, true },
	}
}

// testFalsePeers lets a peer's address be answered by somebody who is not that peer's gateway. Each has an import that
// worked a moment ago, so that what refuses is the certificate.
func (g *gateway) testFalsePeers(t *testing.T) {
	for name, mask := range g.masks(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := g.peers[name]
			web, raw := g.caller("web", "p80."+name), g.caller("web", "p7100."+name+"-raw")
			if a, err := g.ask(web, "GET", "/"); err != nil || a.Body != name+"\n" {
				t.Fatalf("as itself: %+v %v", a, err)
			}
			if text, err := g.silent(raw, time.Second); text != "220 "+name+" ready\n" {
				t.Fatalf("as itself, raw: %q %v", text, err)
			}
			p.server.set(mask(p))
			before := p.server.seen()
			a, err := g.ask(web, "GET", "/secret")
			if err == nil || a.Code != http.StatusServiceUnavailable {
				t.Errorf("masked: %+v %v, want 503", a, err)
			}
			// Envoy turns to it again when it is no longer ejected: try until it did.
			var text string
			eventually(t, 5*time.Second, func() error {
				had := p.server.seen().Dials
				var err error
				text, err = g.silent(raw, time.Second)
				if text == "" && p.server.seen().Dials == had {
					return fmt.Errorf("no connection was tried: %w", err)
				}
				return nil
			})
			if text != "" {
				t.Errorf("masked, raw: %q came through", text)
			}
			got := p.server.since(before)
			if got.Dials < 2 {
				t.Fatal("it was not even tried: this proves nothing")
			}
			if len(got.Requests) > 0 || holds(got.Read, "secret", "isthmus-caller") != nil {
				t.Errorf("it was told %q %+v", got.Read, got.Requests)
			}
			p.server.set(p.serverTLS(p.own), false)
			eventually(t, 15*time.Second, func() error {
				a, err := g.ask(web, "GET", "/")
				if err == nil && a.Body != name+"\n" {
					err = errors.New(a.Body)
				}
				return err
			})
		})
	}
}
