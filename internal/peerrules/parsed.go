package peerrules

import (
	"crypto/x509"
	"slices"
	"sync"
)

// Limits of the cache: texts and bytes per text. A mesh has a few texts of some kilobytes per peer.
const (
	maxParsed     = 1024
	maxParsedText = 64 << 10
)

// parsed caches the results of ParseRoots. Every change of the mesh needs the roots of all peers several times, and
// they rarely change.
var parsed = struct {
	sync.Mutex
	roots map[string]parsedRoots
}{roots: map[string]parsedRoots{}}

type parsedRoots struct {
	certs []*x509.Certificate
	err   error
}

// ParseRoots parses PEM root certificates. Each must be a certificate authority. Any other content is an error. The
// certificates are shared with other callers and must not be changed.
func ParseRoots(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxParsedText {
		return parseRoots(text)
	}
	parsed.Lock()
	r, known := parsed.roots[string(text)]
	parsed.Unlock()
	if !known {
		r.certs, r.err = parseRoots(text)
		parsed.Lock()
		if len(parsed.roots) == maxParsed {
			clear(parsed.roots)
		}
		parsed.roots[string(text)] = r
		parsed.Unlock()
	}
	return slices.Clone(r.certs), r.err
}
