package gateway

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestBucketFillsUpAgain(t *testing.T) {
	b, a := newBuckets(), netip.MustParseAddr("192.0.2.1")
	of := newAllowance(10, 3)
	for i, step := range []struct {
		now, wait time.Duration
	}{
		{0, 0}, {0, 0}, {0, 0}, {0, 100 * time.Millisecond},
		{40 * time.Millisecond, 60 * time.Millisecond},
		{100 * time.Millisecond, 0}, {100 * time.Millisecond, 100 * time.Millisecond},
		{time.Hour, 0}, {time.Hour, 0}, {time.Hour, 0}, {time.Hour, 100 * time.Millisecond}, // never more than the burst
	} {
		if wait, ok := b.take(a, of, step.now); wait != step.wait && step.wait != 0 || ok != (step.wait == 0) {
			t.Errorf("step %d at %v: wait %v, %v; want %v", i, step.now, wait, ok, step.wait)
		}
	}
	if _, ok := b.take(netip.MustParseAddr("192.0.2.2"), of, 0); !ok {
		t.Error("another client has no bucket of its own")
	}
	if _, ok := b.take(a, allowance{}, time.Hour); !ok {
		t.Error("no limit is a limit")
	}
}

// Somebody who asks from a million networks makes nothing grow, and does not
// free another who has used up his allowance.
func TestBucketsOfMany(t *testing.T) {
	b, a := newBuckets(), netip.MustParseAddr("192.0.2.1")
	of := newAllowance(1, 100)
	for range 100 {
		b.take(a, of, 0)
	}
	var raw [16]byte
	raw[0] = 0x20
	for i := range uint32(1 << 18) {
		binary.BigEndian.PutUint32(raw[2:], i)
		if _, ok := b.take(limitKey(netip.AddrFrom16(raw)), of, 0); !ok {
			t.Fatalf("network %d has used up what it has not used", i)
		}
	}
	if _, ok := b.take(a, of, 0); ok {
		t.Error("the bucket of a busy client was given to another")
	}
}

func TestClientsInLimits(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "::1": "::",
	} {
		if got := limitKey(netip.MustParseAddr(a)).String(); got != want {
			t.Errorf("limitKey(%s) = %s, want %s", a, got, want)
		}
	}
}
