package state

import (
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ConfigAge is when an object of the configuration was first seen in a file.
type ConfigAge struct {
	Key       snapshot.Key
	File      string // inside the configuration folder
	FirstSeen time.Time
}

// Quarantine is an object that one proxy could not live with.
type Quarantine struct {
	Proxy   string
	Object  snapshot.Key
	Content string // hash of what the object said then
	Reason  string
	Since   time.Time
}
