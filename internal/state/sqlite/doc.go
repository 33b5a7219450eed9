// Package sqlite keeps the state of one control plane in one file. The file is durable (what was acknowledged
// survives a power cut) and checked: a damaged one is named when it is opened and never begun anew.
package sqlite
