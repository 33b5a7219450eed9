package v1alpha1

import "embed"

//go:generate go tool controller-gen object paths=.
//go:generate go tool controller-gen crd paths=. output:crd:dir=crds

// CRDs are the schemas of this package's kinds, made from the Go types: crds/isthmus.dev_<plural>.yaml.
//
//go:embed crds/*.yaml
var CRDs embed.FS
