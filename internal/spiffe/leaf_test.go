package spiffe

import (
	"crypto/x509"
	"net/url"
	"testing"
)

func TestLeafID(t *testing.T) {
	names := func(uris ...string) []*url.URL {
		var out []*url.URL
		for _, s := range uris {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, u)
		}
		return out
	}
	const till = "spiffe://m.example/ns/a/sa/till"
	for name, c := range map[string]struct {
		cert x509.Certificate
		want string
	}{
		"a leaf": {
			x509.Certificate{URIs: names(till), KeyUsage: x509.KeyUsageDigitalSignature},
			till,
		},
		"with a host name":           {x509.Certificate{URIs: names(till), DNSNames: []string{"till.example"}}, till},
		"no name":                    {x509.Certificate{}, ""},
		"two names":                  {x509.Certificate{URIs: names(till, till)}, ""},
		"a trust domain":             {x509.Certificate{URIs: names("spiffe://m.example")}, ""},
		"a web address":              {x509.Certificate{URIs: names("https://m.example/ns/a/sa/till")}, ""},
		"an identity with a query":   {x509.Certificate{URIs: names(till + "?x")}, ""},
		"a CA":                       {x509.Certificate{URIs: names(till), IsCA: true}, ""},
		"one that signs others":      {x509.Certificate{URIs: names(till), KeyUsage: x509.KeyUsageCertSign}, ""},
		"one that signs revocations": {x509.Certificate{URIs: names(till), KeyUsage: x509.KeyUsageCRLSign}, ""},
	} {
		id, err := LeafID(&c.cert)
		if (err == nil) != (c.want != "") || err == nil && id.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", name, id, err, c.want)
		}
	}
}
