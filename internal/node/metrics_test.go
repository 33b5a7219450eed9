package node

import (
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"

	"isthmus.dev/isthmus/internal/spiffe"
)

func TestWhoMayReadMetrics(t *testing.T) {
	td, err := spiffe.ParseTrustDomain("cards.example")
	if err != nil {
		t.Fatal(err)
	}
	allow, revoked := []string{
		"spiffe://cards.example/ns/monitoring/sa/prometheus",
	}, []string{"4000112233445566aa0000000000000002"}
	for id, want := range map[string][2]bool{ // with serial number …1, and …2, which was revoked
		"spiffe://cards.example/isthmus/admin/ann":           {true, false},
		"spiffe://cards.example/ns/monitoring/sa/prometheus": {true, true},
		"spiffe://cards.example/ns/default/sa/web":           {false, false},
		"spiffe://cards.example/isthmus/node/n":              {false, false},
		"spiffe://other.example/isthmus/admin/ann":           {false, false},
	} {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		for i, serial := range []string{"4000112233445566aa0000000000000001", "4000112233445566aa0000000000000002"} {
			n, _ := new(big.Int).SetString(serial, 16)
			if got := mayRead(&x509.Certificate{URIs: []*url.URL{u}, SerialNumber: n}, td, allow,
				revoked); got != want[i] {
				t.Errorf("%s, serial number %s: %t", id, serial, got)
			}
		}
	}
	u := &url.URL{Scheme: "spiffe", Host: "cards.example", Path: "/ns/monitoring/sa/prometheus"}
	if mayRead(&x509.Certificate{URIs: []*url.URL{u}, SerialNumber: big.NewInt(1), IsCA: true}, td, allow, revoked) {
		t.Error("a CA's certificate with an allowed name may read")
	}
}
