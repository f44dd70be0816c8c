package srtp

const (
	words = 16
	// window is how many numbers behind the newest are remembered; the word that
	// the newest is in may not be full yet. RFC 3711 §3.3.2 asks for 64 at least; a
	// key frame comes in bursts that networks reorder.
	window = (words - 1) * 64
)

// A history knows which of the last numbers have been used. Numbers are the
// packet index of RFC 3711 §3.3.1: rollover counter and sequence number.
type history struct {
	begun  bool
	newest uint64
	used   [words]uint64 // a ring of bits
}

// lastIndex is the greatest index of a key (RFC 3711 §9.2).
const lastIndex = 1<<48 - 1

// estimate returns the index that a sequence number has most likely (RFC 3711
// §3.3.1): the nearest to the newest. ok is false if that does not exist.
func (h *history) estimate(seq uint16) (index uint64, ok bool) {
	if !h.begun {
		return uint64(seq), true
	}
	i := int64(h.newest) + int64(int16(seq-uint16(h.newest)))
	return uint64(i), i >= 0 && i <= lastIndex
}

// known tells whether a number has been used, or is too old to tell.
func (h *history) known(index uint64) (used, old bool) {
	switch {
	case !h.begun || index > h.newest:
		return false, false
	case h.newest-index >= window:
		return false, true
	}
	return h.used[index/64%words]&(1<<(index%64)) != 0, false
}

// add marks a number that is not too old as used.
func (h *history) add(index uint64) {
	if !h.begun {
		h.begun, h.newest = true, index
	}
	if index > h.newest {
		if first := h.newest/64 + 1; index/64-h.newest/64 >= words {
			clear(h.used[:])
		} else {
			for w := first; w <= index/64; w++ {
				h.used[w%words] = 0
			}
		}
		h.newest = index
	}
	h.used[index/64%words] |= 1 << (index % 64)
}
