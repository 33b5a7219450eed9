package state

import "errors"

// Errors on which callers branch.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrUsed     = errors.New("used already")
	ErrExpired  = errors.New("expired")
	ErrSecret   = errors.New("wrong secret")
	ErrRevoked  = errors.New("revoked")
	ErrSequence = errors.New("sequence goes back")
	// ErrSuperseded means that a decision was based on outdated data.
	ErrSuperseded = errors.New("superseded")
	ErrDamaged    = errors.New("state damaged")
)
