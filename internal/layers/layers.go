// Package layers holds no code: its test keeps the imports between this module's packages pointing downward.
package layers
