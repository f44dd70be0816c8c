package sfu

import (
	"testing"
	"time"

	"sallyport/sfu/internal/feedback"
)

func TestTrainsFillTheLinkThatTheLastOneFound(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, test := range []struct {
		name     string
		capacity int
		age      time.Duration
		want     uint16
	}{
		{"none yet", 0, 1000 * time.Hour, 16},
		{"narrow", 600_000, time.Second, 16},
		{"wider", 1_200_000, time.Second, 32},
		{"wide", 1 << 60, time.Second, 48},
		{"of long ago", 1_200_000, 3 * time.Second, 16},
	} {
		if got := trainPackets(feedback.Train{Capacity: test.capacity, At: now.Add(-test.age)}, now); got != test.want {
			t.Errorf("%s: %d packets, want %d", test.name, got, test.want)
		}
	}
}
