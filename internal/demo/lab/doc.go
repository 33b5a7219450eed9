// Package lab builds a small world on one machine: network namespaces joined by bridges, and processes inside them.
// It keeps a record of both, so that what a crashed run left is found and removed by the next, and nothing else is.
package lab
