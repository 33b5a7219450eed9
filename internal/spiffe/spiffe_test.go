package spiffe_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/spiffe"
)

func domain(t *testing.T, name string) spiffe.TrustDomain {
	t.Helper()
	td, err := spiffe.ParseTrustDomain(name)
	if err != nil {
		t.Fatal(err)
	}
	return td
}

func TestTrustDomains(t *testing.T) {
	for name, fine := range map[string]bool{
		"cards.example": true, "cards": true, "a-b_c.example": true,
		"": false, "Cards.example": false, "cards.example.": false, ".cards": false, "-cards": false, "cards_": false,
		"cards.example:443": false, "cards/example": false, "cärds.example": false, strings.Repeat("a", 256): false,
	} {
		if _, err := spiffe.ParseTrustDomain(name); (err == nil) != fine {
			t.Errorf("trust domain %q: %v; fine should be %v", name, err, fine)
		}
	}
}

func TestIdentities(t *testing.T) {
	td := domain(t, "cards.example")
	workload, err1 := spiffe.Workload(td, "default", "payments")
	node, err2 := spiffe.Node(td, "node-1")
	admin, err3 := spiffe.Admin(td, "alice")
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for got, want := range map[string]string{
		workload.String():           "spiffe://cards.example/ns/default/sa/payments",
		node.String():               "spiffe://cards.example/isthmus/node/node-1",
		admin.String():              "spiffe://cards.example/isthmus/admin/alice",
		spiffe.Control(td).String(): "spiffe://cards.example/isthmus/control",
	} {
		if got != want {
			t.Errorf("made %q, want %q", got, want)
		}
	}
}

func TestWhatCannotBeAnIdentity(t *testing.T) {
	td := domain(t, "cards.example")
	for _, bad := range []string{"", "a/b", "..", ".", "a b", "ä", "%2f"} {
		if id, err := spiffe.Workload(td, "default", bad); err == nil {
			t.Errorf("service account %q made %s", bad, id)
		}
		if id, err := spiffe.Workload(td, bad, "payments"); err == nil {
			t.Errorf("namespace %q made %s", bad, id)
		}
		if id, err := spiffe.Node(td, bad); err == nil {
			t.Errorf("node %q made %s", bad, id)
		}
	}
}

// Each kind of identity is read as itself alone: a node's name never passes for a workload's or an administrator's.
func TestPartsAreReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		"spiffe://cards.example/ns/default/sa/payments":         "workload default payments",
		"spiffe://cards.example/isthmus/node/node-1":            "node node-1",
		"spiffe://cards.example/isthmus/admin/alice":            "admin alice",
		"spiffe://cards.example/isthmus/control":                "",
		"spiffe://cards.example/ns/default/sa/payments/x":       "",
		"spiffe://cards.example/x/ns/default/sa/payments":       "",
		"spiffe://cards.example/ns/default/sb/payments":         "",
		"spiffe://cards.example/isthmus/node/a/b":               "",
		"spiffe://cards.example/isthmus/nodes/a":                "",
		"spiffe://cards.example/isthmus":                        "",
		"spiffe://cards.example":                                "",
		"spiffe://cards.example/ns/isthmus/sa/node":             "workload isthmus node",
		"spiffe://cards.example/ns/default/sa/isthmus-node-x.y": "workload default isthmus-node-x.y",
	} {
		id, err := spiffe.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if ns, sa, ok := spiffe.WorkloadParts(id); ok {
			got = append(got, "workload "+ns+" "+sa)
		}
		if name, ok := spiffe.NodeName(id); ok {
			got = append(got, "node "+name)
		}
		if name, ok := spiffe.AdminName(id); ok {
			got = append(got, "admin "+name)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s is read as %q, want %q", text, got, want)
		}
	}
}

func TestFingerprint(t *testing.T) {
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4, of "abc"
	if got := spiffe.Fingerprint(&x509.Certificate{Raw: []byte("abc")}); got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
}
