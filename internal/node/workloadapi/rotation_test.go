package workloadapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	client "github.com/spiffe/go-spiffe/v2/workloadapi"

	"isthmus.dev/isthmus/internal/node/sds"
)

// TestARootIsReplacedWithoutAFailedHandshake walks two programs through a rotation, one a step ahead of the other: the
// new root is told, the leaves are of the new root, the old root is withdrawn.
func TestARootIsReplacedWithoutAFailedHandshake(t *testing.T) {
	old, next := newAuthority(t), newAuthority(t)
	both := []*x509.Certificate{old.root, next.root}
	steps := []func(*sds.IdentityState){
		func(h *sds.IdentityState) { h.SVID, h.Roots = old.issue(1, time.Hour), []*x509.Certificate{old.root} },
		func(h *sds.IdentityState) { h.Roots = both },
		func(h *sds.IdentityState) { h.SVID = next.issue(2, time.Hour) },
		func(h *sds.IdentityState) { h.Roots = []*x509.Certificate{next.root} },
	}
	var worlds [2]*world
	var sources [2]*client.X509Source
	for i := range worlds {
		worlds[i] = newWorld(t, nil)
		close(worlds[i].joined)
		worlds[i].store.change(steps[0])
		source, err := client.NewX509Source(within(t, 20*time.Second),
			client.WithClientOptions(client.WithAddr("unix://"+worlds[i].path)))
		must(t, err)
		defer source.Close()
		sources[i] = source
	}
	pay := tlsconfig.AuthorizeID(spiffeid.RequireFromString("spiffe://cards.example/ns/default/sa/pay"))
	l, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(sources[0], sources[0], pay))
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}()
	call := func() error {
		d := tls.Dialer{
			NetDialer: &net.Dialer{Timeout: 2 * time.Second},
			Config:    tlsconfig.MTLSClientConfig(sources[1], sources[1], pay),
		}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		if said, err := io.ReadAll(c); err != nil || string(said) != "hello" {
			return fmt.Errorf("the server said %q: %w", said, err)
		}
		return nil
	}
	must(t, call())
	calls := 0
	for n, step := range steps[1:] {
		for i, w := range worlds { // the server first, and then the client
			updated := sources[i].Updated()
			drain(updated) // of the step before
			w.store.change(step)
			began := time.Now()
			for waiting := true; waiting; calls++ {
				if time.Since(began) > 5*time.Second {
					t.Fatalf("step %d is not heard of at side %d", n+1, i)
				}
				select {
				case <-updated:
					waiting = false
				default:
				}
				if err := call(); err != nil {
					t.Fatalf("step %d, side %d: %v", n+1, i, err)
				}
			}
		}
	}
	t.Logf("%d handshakes", calls)
	// And what the steps would have run into, in another order.
	drain(sources[0].Updated())
	worlds[0].store.change(func(h *sds.IdentityState) { h.SVID = old.issue(3, time.Hour) })
	<-sources[0].Updated()
	if call() == nil {
		t.Error("a leaf of the withdrawn root is believed")
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}
