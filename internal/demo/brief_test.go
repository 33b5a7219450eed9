package demo

import "testing"

func TestBrief(t *testing.T) {
	for body, want := range map[string]string{
		"isthmus: default/storefront (spiffe://retail.example/ns/default/sa/storefront) may not call payments.default at 240.240.0.1:80 (no\nx": "default/storefront may not call payments.default",
		"isthmus: spiffe://cards.example/ns/default/sa/payments accepts only mutual TLS":                                                        "payments accepts only mutual TLS",
		"": "",
	} {
		if got := brief(body); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
