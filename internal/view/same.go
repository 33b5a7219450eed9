package view

import (
	"bytes"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// SameSurroundings says whether what every view holds beside its workloads is as it was.
func SameSurroundings(a, b *model.Mesh) bool {
	return a.TrustDomain == b.TrustDomain && a.Domain == b.Domain && a.AllowAny == b.AllowAny &&
		a.CertificateTTL == b.CertificateTTL && a.HandOver == b.HandOver && slices.Equal(a.Gateways, b.Gateways) &&
		maps.EqualFunc(a.Roots, b.Roots, bytes.Equal)
}

// SameWorkloads says whether a node's proxy is the very one that it was, and with it its workloads and all that they
// may call: what says the same is not compiled anew. Of a gateway it is never said.
func SameWorkloads(a, b *model.Proxy) bool { return a == b && b != nil && b.Gateway == nil }
