package federation

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
)

// MaxBundleBytes bounds a bundle document.
const MaxBundleBytes = 128 << 10

const maxRefreshHint = 24 * time.Hour

// Bundle is the complete set of roots of one trust domain, with a sequence number that only grows (see inFuture).
type Bundle struct {
	TrustDomain spiffe.TrustDomain
	Roots       []*x509.Certificate
	Sequence    uint64
	RefreshHint time.Duration
}

// Encode returns the bundle in the SPIFFE bundle format (a JWK set with spiffe_sequence and spiffe_refresh_hint).
func (b Bundle) Encode() ([]byte, error) {
	doc := spiffebundle.FromX509Authorities(b.TrustDomain, b.Roots)
	doc.SetSequenceNumber(b.Sequence)
	if b.RefreshHint > 0 {
		doc.SetRefreshHint(b.RefreshHint)
	}
	return doc.Marshal()
}

// ParseBundle parses a bundle document for td. It refuses any root that must not vouch for td.
func ParseBundle(td spiffe.TrustDomain, raw []byte, now time.Time) (Bundle, error) {
	if len(raw) > MaxBundleBytes {
		return Bundle{}, fmt.Errorf("the bundle is larger than %d bytes", MaxBundleBytes)
	}
	if err := checkBundleShape(raw); err != nil {
		return Bundle{}, err
	}
	doc, err := spiffebundle.Parse(td, raw)
	if err != nil {
		return Bundle{}, fmt.Errorf("not a SPIFFE bundle: %w", err)
	}
	sequence, ok := doc.SequenceNumber()
	if !ok {
		return Bundle{}, errors.New("the bundle has no spiffe_sequence")
	}
	if inFuture(sequence, now) {
		return Bundle{}, errAhead(sequence, now)
	}
	hint, _ := doc.RefreshHint()
	b := Bundle{
		TrustDomain: td, Roots: doc.X509Authorities(), Sequence: sequence,
		RefreshHint: min(max(hint, 0), maxRefreshHint),
	}
	return b, b.check(now)
}

// checkBundleShape checks, before keys are decoded, that there are not too many and that each has a known use and
// exactly one certificate.
func checkBundleShape(raw []byte) error {
	var doc struct {
		Keys []struct {
			Use string            `json:"use"`
			X5C []json.RawMessage `json:"x5c"`
		} `json:"keys"`
		Hint *int64 `json:"spiffe_refresh_hint"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("the bundle is not a JWK set: %w", err)
	}
	switch {
	case len(doc.Keys) == 0:
		return errors.New("the bundle holds no key")
	case len(doc.Keys) > peerrules.MaxRoots:
		return fmt.Errorf("the bundle holds %d keys; at most %d are taken", len(doc.Keys), peerrules.MaxRoots)
	case doc.Hint != nil && (*doc.Hint < 0 || *doc.Hint > 1<<31):
		return errors.New("the bundle's spiffe_refresh_hint is no time")
	}
	for i, k := range doc.Keys {
		if k.Use != "x509-svid" || len(k.X5C) != 1 {
			return fmt.Errorf("key %d of the bundle is not of use x509-svid with exactly one certificate", i+1)
		}
	}
	return nil
}

// maxAhead is the tolerated clock difference between two meshes.
const maxAhead = 10 * time.Minute

// inFuture reports whether a sequence number lies in the future. Sequence numbers are times in microseconds. Refusing
// future ones prevents a mesh from using up the numbers.
func inFuture(sequence uint64, now time.Time) bool {
	return sequence > uint64(max(now.Add(maxAhead).UnixMicro(), 0))
}

func errAhead(sequence uint64, now time.Time) error {
	return fmt.Errorf("the sequence %d is a time to come (it is %d here): check the clocks of both sides", sequence,
		now.UnixMicro())
}

func (b Bundle) check(now time.Time) error {
	if len(b.Roots) == 0 {
		return errors.New("the bundle holds no certificate")
	}
	valid := false
	for i, c := range b.Roots {
		if err := peerrules.CheckRoot(c); err != nil {
			return fmt.Errorf("certificate %d of the bundle: %w", i+1, err)
		}
		if err := checkRootDomain(c, b.TrustDomain); err != nil {
			return fmt.Errorf("certificate %d of the bundle: %w", i+1, err)
		}
		valid = valid || (!now.Before(c.NotBefore) && now.Before(c.NotAfter))
	}
	if !valid {
		return fmt.Errorf("no certificate of the bundle is valid at %s: check the clocks of both sides",
			now.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkRootDomain refuses a root that names (as SPIFFE allows) another trust domain.
func checkRootDomain(c *x509.Certificate, td spiffe.TrustDomain) error {
	for _, u := range c.URIs {
		id, err := spiffe.Parse(u.String())
		if err != nil || id.TrustDomain() != td || id.Path() != "" {
			return fmt.Errorf("it names %s, not spiffe://%s", u, td.Name())
		}
	}
	return nil
}

// has reports whether the bundle contains a root with this fingerprint.
func (b Bundle) has(fingerprint string) bool {
	return slices.ContainsFunc(b.Roots, func(c *x509.Certificate) bool { return spiffe.Fingerprint(c) == fingerprint })
}

// sameRoots compares two sets of roots.
func sameRoots(a, b []*x509.Certificate) bool {
	return slices.Equal(fingerprints(a), fingerprints(b))
}

// fingerprints returns the distinct fingerprints of certificates, sorted.
func fingerprints(certs []*x509.Certificate) []string {
	all := make([]string, 0, len(certs))
	for _, c := range certs {
		all = append(all, spiffe.Fingerprint(c))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// distinct removes duplicates and sorts, so that equal sets encode to equal bytes.
func distinct(certs []*x509.Certificate) []*x509.Certificate {
	certs = slices.Clone(certs)
	slices.SortFunc(certs, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(certs, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}
