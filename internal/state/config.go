package state

import (
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// ConfigAge is when a configuration object was first seen in a file.
type ConfigAge struct {
	Key       snapshot.Key
	File      string // inside the configuration folder; any bytes, at most MaxAgedFile of them when percent-encoded
	FirstSeen time.Time
}

// MaxAgedFile bounds the percent-encoded name of a file by what an index of a database holds.
const MaxAgedFile = 2000

// AgeChange is what becomes different of the ages of objects.
type AgeChange struct {
	// New are seen for the first time, by the word of whoever asks. Some of one time stay of one time.
	New []ConfigAge
	// Known have been seen before, in another file or until what was kept of them was removed.
	Known []ConfigAge
	// Gone are not there any more. Only Key and File count.
	Gone []ConfigAge
}

// Quarantine is an object that one proxy could not live with.
type Quarantine struct {
	Proxy   string
	Object  snapshot.Key
	Content string // hash of the object's content at the time
	Reason  string
	Since   time.Time
}
