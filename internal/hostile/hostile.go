// Package hostile holds no code: its tests make objects of every kind that nobody would write on purpose, walking the
// schema of each, and hold reading to two promises. No object makes anything panic, and whatever is accepted Envoy
// takes.
package hostile
