package view

import (
	"bytes"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// SameSurroundings says whether what every view holds beside its workloads is as it was.
func SameSurroundings(a, b *model.Mesh) bool {
	return a.Domain == b.Domain && a.AllowAny == b.AllowAny && a.CertificateTTL == b.CertificateTTL &&
		a.HandOver == b.HandOver && maps.EqualFunc(a.Roots, b.Roots, bytes.Equal)
}

// SameWorkloads says whether a node's workloads are the very ones that they were: what did not change is not compiled
// anew.
func SameWorkloads(a, b *model.Proxy) bool {
	return a != nil && a.Gateway == nil && b.Gateway == nil && slices.Equal(a.Workloads, b.Workloads)
}
