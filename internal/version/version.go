// Package version says which build of Isthmus this is.
package version

import "runtime/debug"

// stamp is set by the linker: `git describe` of the tree that was built.
var stamp string

// String returns the stamp, or what Go recorded of the module when it was built without one.
func String() string {
	if stamp != "" {
		return stamp
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
