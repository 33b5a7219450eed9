// Package samples holds the demo's two meshes as plain YAML, ready to be copied to where a control plane watches.
//
// Files in <mesh>/ are the mesh on its own; files in federation/<mesh>/ open the guarded strip between the two and are
// applied later, one by one.
package samples

import "embed"

// Files is the configuration of the meshes "cards" and "retail".
//
//go:embed cards retail federation
var Files embed.FS

// Customers are small clients in several languages, that ask one URL again and again over the connections that their
// language's programs keep, with the resolver that these have.
//
//go:embed customers
var Customers embed.FS
