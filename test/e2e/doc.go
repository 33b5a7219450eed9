// Package e2e tries Isthmus as its users run it: the built binaries, real Envoys, real network namespaces, real TLS.
// Tests that measure what a busy machine would spoil run alone, the others two at a time.
// Its tests carry the build tag e2e, need root, and make only namespaces whose names begin with isthmus-t-.
package e2e
