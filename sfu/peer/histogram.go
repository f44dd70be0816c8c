package peer

import (
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets of microseconds, 16 to an octave, so
// that a percentile is off by 6 % at most. The zero Histogram is empty. It
// reaches to about 67 s; longer durations count as that.
type Histogram struct {
	Count   uint64
	buckets [subBuckets * octaves]uint32
}

const (
	subBuckets = 16 // a power of two
	octaves    = 23
)

// Add counts one duration; a negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	h.Count++
	h.buckets[bucketOf(uint64(max(d, 0)/time.Microsecond))]++
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	h.Count += o.Count
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// Less returns what has been added since an earlier copy of h.
func (h Histogram) Less(earlier *Histogram) Histogram {
	h.Count -= earlier.Count
	for i, n := range earlier.buckets {
		h.buckets[i] -= n
	}
	return h
}

// Percentile returns a duration that the share q (0 to 1) of all does not
// exceed, or 0 if there are none.
func (h *Histogram) Percentile(q float64) time.Duration {
	rank := max(uint64(q*float64(h.Count)+0.5), 1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); seen >= rank {
			return time.Duration(bucketEnd(i)) * time.Microsecond
		}
	}
	return 0
}

// bucketOf maps microseconds below 16 to themselves and larger ones to octave
// and the four bits below the highest.
func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	octave := bits.Len64(us) - 5
	return min(octave*subBuckets+int(us>>octave), subBuckets*octaves-1)
}

// bucketEnd returns the largest value of a bucket.
func bucketEnd(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	octave := i/subBuckets - 1
	return uint64(i-octave*subBuckets+1)<<octave - 1
}
