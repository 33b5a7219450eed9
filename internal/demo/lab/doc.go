// Package lab builds a network on one machine: network namespaces joined by bridges, and processes inside them. It
// records both, so that a later run finds and removes exactly what a crashed one left.
package lab
