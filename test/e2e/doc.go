// Package e2e tries Isthmus as its users run it: the built binaries, real Envoys, real network namespaces, real TLS.
// Its tests carry the build tag e2e, need root, and make only namespaces whose names begin with isthmus-t-.
package e2e
