package feedback

import (
	"testing"
	"time"
)

func TestDelivered(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration
		n     int
		want  int
	}{
		{"100 kB/s", 10 * time.Millisecond, 50, 800_000},
		{"too few", 10 * time.Millisecond, 5, 0},
		{"too short", time.Millisecond, 50, 0},
		{"too slow to tell", time.Second, 50, 0},
	} {
		var a arrivals
		for i := range test.n {
			a.add(time.Duration(i)*test.every, 1000)
		}
		if got := a.rate(); got != test.want {
			t.Errorf("%s: %d bit/s, want %d", test.name, got, test.want)
		}
	}
}

// TestDeliveredIsOfTheNewest: not of what came before the way got narrow.
func TestDeliveredIsOfTheNewest(t *testing.T) {
	var a arrivals
	at := time.Duration(0)
	for range 200 {
		at += time.Millisecond
		a.add(at, 1000)
	}
	for range 40 {
		at += 10 * time.Millisecond
		a.add(at, 1000)
	}
	if got := a.rate(); got != 800_000 {
		t.Errorf("%d bit/s, want 800000", got)
	}
}
