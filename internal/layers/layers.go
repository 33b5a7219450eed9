// Package layers contains only tests: imports between this module's packages must point downward.
package layers
