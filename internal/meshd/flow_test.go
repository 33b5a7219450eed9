package meshd

import (
	"crypto/x509"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
)

// One node from its token to its configuration.
func TestJoinSyncSignDiscover(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	a.instructed("the names that shop may resolve", func(in *agentapi.Instructions) bool {
		return in.TrustDomain == "cards.example" && in.CertificateTTL == 5*time.Minute &&
			len(in.DNS["default/shop"].Hosts["payments.default.svc.cluster.local"]) == 1
	})
	b.instructed("the names that payments may resolve: none", func(in *agentapi.Instructions) bool {
		table, ok := in.DNS["default/payments"]
		return ok && len(table.Hosts) == 0
	})

	svid, err := a.sign("default", "shop")
	must(t, err)
	leaf, err := x509.ParseCertificate(svid.chain[0])
	must(t, err)
	if got := leaf.URIs[0].String(); got != "spiffe://cards.example/ns/default/sa/shop" || len(leaf.URIs) != 1 {
		t.Errorf("the certificate is for %v", leaf.URIs)
	}
	if life := time.Until(leaf.NotAfter); life > 5*time.Minute || life < 4*time.Minute {
		t.Errorf("the certificate lives for %s", life)
	}

	envoyA, envoyB := ads(t, a.conn, nil), ads(t, b.conn, nil)
	envoyA.until("shop's own configuration", envoyA.hasListener("outbound/default/shop"))
	envoyB.until("payments' own configuration", envoyB.hasListener("inbound/default/payments"))
	if envoyB.hasListener("inbound/default/shop")() || envoyA.hasListener("inbound/default/payments")() {
		t.Errorf("a proxy was told of another's workload: %v and %v", envoyA.has, envoyB.has)
	}
	if c := "default/shop>payments.default.svc.cluster.local:80"; envoyA.has[envoy.ClusterType][c] == "" {
		t.Errorf("no cluster %s: %v", c, envoyA.has[envoy.ClusterType])
	}
	eventually(t, "all acknowledged", func() bool { return acknowledged(p.status(), 2) })
}

func acknowledged(s *adminapi.StatusResponse, proxies int) bool {
	n := 0
	for _, px := range s.Proxies {
		ok := px.Connected && len(px.Types) > 0
		for _, ts := range px.Types {
			ok = ok && ts.Sent == ts.Acked && ts.Nack == ""
		}
		if ok {
			n++
		}
	}
	return n == proxies
}
