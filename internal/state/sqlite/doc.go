// Package sqlite keeps the state of a single control plane in one file. Acknowledged writes survive a power loss.
// Damage is detected when the file is opened; a damaged file is never replaced by a new one.
package sqlite
