package view

import (
	"bytes"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// SameGlobals reports whether everything that each view holds beside its workloads is unchanged.
func SameGlobals(a, b *model.Mesh) bool {
	return a.TrustDomain == b.TrustDomain && a.Domain == b.Domain && a.AllowAny == b.AllowAny &&
		a.CertificateTTL == b.CertificateTTL && a.HandOver == b.HandOver && slices.Equal(a.Gateways, b.Gateways) &&
		maps.EqualFunc(a.Roots, b.Roots, bytes.Equal)
}

// SameWorkloads reports whether a node's proxy is the same pointer, and so all its workloads and their destinations are
// unchanged: the compiler keeps pointers of what did not change. It is always false for gateways.
func SameWorkloads(a, b *model.Proxy) bool { return a == b && b != nil && b.Gateway == nil }
