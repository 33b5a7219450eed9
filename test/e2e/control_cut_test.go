//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/wellknown"
	"isthmus.dev/isthmus/samples/probe"
)

const gatewayID = "spiffe://retail.example/ns/isthmus-system/sa/federation-gateway"

// TestPartitionFromTheControlPlane has a gateway hear nothing more from its control plane: no connection is closed,
// packets are dropped. Healed past half a certificate's life it renews before the end and not one request failed.
// Healed past the end, requests were refused meanwhile, both sides said why, and it comes back by itself.
func TestPartitionFromTheControlPlane(t *testing.T) {
	t.Parallel()
	s := raise(t, "isthmus-t-off")
	const life = 40 * time.Second
	s.shorten("retail", life.String())
	first := s.renewed(t, "", life)
	load := s.begin(probe.Load{
		HTTP: probe.HTTP{Method: "GET", URL: paymentsURL, Timeout: 5 * time.Second}, Workers: 4,
		Pause: 50 * time.Millisecond,
	})
	heal := s.cut(t, "retail-gw", "eth0", wellknown.ControlPort)
	waittest.Quiet(life*65/100 - time.Since(first.NotAfter.Add(-life)))
	// of an agent that is away none is listed
	if now := s.gatewayCert(t); now.Serial != "" && now.Serial != first.Serial {
		t.Fatal("a certificate came through the partition")
	}
	need(t, heal())
	s.renewed(t, first.Serial, time.Until(first.NotAfter))
	waittest.Quiet(time.Until(first.NotAfter.Add(time.Second)))
	unharmed(t, load.finish(t), 500)

	s.shorten("retail", "10s")
	last := s.renewed(t, "", 10*time.Second)
	heal = s.cut(t, "retail-gw", "eth0", wellknown.ControlPort)
	waittest.Quiet(time.Until(last.NotAfter.Add(2 * time.Second)))
	for range 5 {
		r := s.get("storefront", paymentsURL, 10*time.Second)
		if r.Status == 200 || r.Elapsed > 5*time.Second {
			t.Errorf("past the end of the gateway's certificate: %d %s after %s", r.Status, r.Error, r.Elapsed)
		}
	}
	within(t, noticed, "the agent tells", func() error {
		text := s.agentMetrics(t, "retail", "gateway")
		expiry := regexp.MustCompile(`isthmus_agent_certificate_expiry_seconds\{spiffe_id="` + gatewayID + `"\} (\S+)`)
		end, err := strconv.ParseFloat(expiry.FindStringSubmatch(text)[1], 64)
		need(t, err)
		if !strings.Contains(text, "\nisthmus_agent_control_connected 0\n") ||
			time.Unix(int64(end), 0).After(time.Now()) {
			return fmt.Errorf("connected, with a certificate until %s", time.Unix(int64(end), 0))
		}
		return nil
	})
	took := within(t, 40*time.Second, "the control plane tells", func() error {
		for _, p := range query[adminapi.StatusResponse](t, s, "status", "-o", "json", "--socket",
			s.socket("retail")).Proxies {
			if p.Name == "retail-gateway" && !p.Connected {
				return nil
			}
		}
		return fmt.Errorf("it says that the gateway is connected")
	})
	t.Logf("the control plane took the gateway for connected %s longer", took.Round(time.Millisecond))
	need(t, heal())
	took = within(t, 25*time.Second, "served again", s.served)
	t.Logf("served again after %s", took.Round(time.Millisecond))
}

// renewed waits for a certificate of retail's gateway that is not the one given and has nearly all of its life before
// it.
func (s *strip) renewed(t *testing.T, old string, most time.Duration) (c adminapi.NodeCert) {
	t.Helper()
	within(t, most+5*time.Second, "a new certificate", func() error {
		c = s.gatewayCert(t)
		if left := time.Until(c.NotAfter); c.Serial == old || old == "" && (left > most || left < most*3/4) {
			return fmt.Errorf("%s is good for %s", c.Serial, left)
		}
		return nil
	})
	return c
}

func (s *strip) gatewayCert(t *testing.T) (newest adminapi.NodeCert) {
	t.Helper()
	for _, c := range query[adminapi.CertListResponse](t, s, "cert", "list", "-o", "json", "--socket",
		s.socket("retail")).Certs {
		if c.SPIFFEID == gatewayID && c.NotAfter.After(newest.NotAfter) {
			newest = c
		}
	}
	return newest
}

// agentMetrics is what an agent tells on its own host.
func (s *strip) agentMetrics(t *testing.T, mesh, agent string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, mesh, agent, "run", "metrics.sock"))
		},
	}}
	resp, err := client.Get("http://agent/metrics")
	need(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	need(t, err)
	return string(text)
}
