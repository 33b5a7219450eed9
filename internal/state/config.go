package state

import (
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ConfigAge is when a configuration object was first seen in a file.
type ConfigAge struct {
	Key       snapshot.Key
	File      string // relative to the configuration folder; any bytes, at most MaxAgedFile when percent-encoded
	FirstSeen time.Time
}

// MaxAgedFile limits the percent-encoded name of a file to what a database index can hold.
const MaxAgedFile = 2000

// AgeChange is a change of objects' ages.
type AgeChange struct {
	// New are seen for the first time by the caller. Objects with equal times keep equal times.
	New []ConfigAge
	// Known were seen before, in another file or until their stored age was removed.
	Known []ConfigAge
	// Gone no longer exist. Only Key and File are used.
	Gone []ConfigAge
}

// Quarantine is an object that one proxy rejected.
type Quarantine struct {
	Proxy   string
	Object  snapshot.Key
	Content string // hash of the object's content at the time
	Reason  string
	Since   time.Time
}
