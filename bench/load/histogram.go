// Package load makes calls and measures how long they take: at a fixed rate whatever the answers do (open loop), or as
// fast as the answers come (closed loop). In the open loop a call's time counts from when it should have been made, so
// that a server that stalls cannot hide the calls that it delayed.
package load

import (
	"math/bits"
	"time"
)

// precision: 1<<precision buckets for each power of two, so that a quantile is right to 0.8 %.
const precision = 7

// Histogram counts durations. The zero value is empty. It is not for concurrent use: give each worker its own and
// Merge.
type Histogram struct {
	counts [(64 - precision) << precision]uint64
	n      uint64
	max    time.Duration
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
	h.max = max(h.max, d)
}

// Merge counts everything that another histogram counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Count is how many durations were counted.
func (h *Histogram) Count() int { return int(h.n) }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the duration that a share q of all do not exceed; 0 of an empty histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	want, seen := uint64(q*float64(h.n)), uint64(0)
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen > want {
			return min(time.Duration(upperBound(i)), h.max)
		}
	}
	return h.max
}

// bucket is linear below 1<<precision and logarithmic with linear steps above.
func bucket(v uint64) int {
	if v < 1<<precision {
		return int(v)
	}
	shift := bits.Len64(v) - precision - 1
	return shift<<precision + int(v>>shift)
}

// upperBound is the largest value in a bucket.
func upperBound(i int) uint64 {
	if i < 2<<precision {
		return uint64(i)
	}
	shift := i>>precision - 1
	return uint64(i-shift<<precision+1)<<shift - 1
}
