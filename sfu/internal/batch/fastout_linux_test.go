//go:build linux && !portable

package batch

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A kernel answers sendmmsg as a test wants: one errno for each call, after
// which it sends everything. done gets the number of messages of each call.
type kernel struct {
	errors []syscall.Errno
	part   int // how many messages a call takes at most; 0 = all
	done   []int
	waits  int
}

func (k *kernel) take(o *Out) {
	o.fast.send = func(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno) {
		if len(k.errors) > 0 {
			errno := k.errors[0]
			k.errors = k.errors[1:]
			if errno != 0 {
				return -1, errno
			}
		}
		if k.part > 0 {
			hdrs = hdrs[:min(k.part, len(hdrs))]
		}
		k.done = append(k.done, len(hdrs))
		return sendmmsg(fd, hdrs)
	}
	o.fast.wait = func(uintptr, time.Duration) { k.waits++; time.Sleep(time.Millisecond) }
}

func TestKernelErrors(t *testing.T) {
	const full, again = unix.EAGAIN, unix.EINTR
	for _, tt := range []struct {
		name   string
		kernel kernel
		want   string // what arrives of aaa b ccc: three segments, one, three
		lost   map[Loss]int
		calls  []int
		cuts   bool // later messages are cut still
	}{
		{"well", kernel{}, "aaabccc", nil, []int{3}, true},
		{"in parts", kernel{part: 2}, "aaabccc", nil, []int{2, 1}, true},
		{"interrupted", kernel{errors: []syscall.Errno{again, again}}, "aaabccc", nil, []int{3}, true},
		{"full for a while", kernel{errors: []syscall.Errno{full, full}}, "aaabccc", nil, []int{3}, true},
		{"full", kernel{errors: []syscall.Errno{full, full, full, full, full, full, full}}, "", map[Loss]int{LossFull: 7}, nil, true},
		{"full in the middle", kernel{part: 1, errors: []syscall.Errno{0, full, full, full, full, full, full}}, "aaa", map[Loss]int{LossFull: 4}, []int{1}, true},
		{"no route for the first", kernel{errors: []syscall.Errno{unix.ENETUNREACH}}, "bccc", map[Loss]int{LossRefused: 3}, []int{2}, true},
		{"the second is not permitted", kernel{part: 1, errors: []syscall.Errno{0, unix.EPERM}}, "aaaccc", map[Loss]int{LossRefused: 1}, []int{1, 1}, true},
		{"no cutting on this path", kernel{errors: []syscall.Errno{unix.EINVAL}}, "aaabccc", nil, []int{3, 2}, true},
		{"too long for this path", kernel{part: 1, errors: []syscall.Errno{0, 0, unix.EMSGSIZE}}, "aaabccc", nil, []int{1, 1, 1, 1, 1}, true},
		{"no cutting on this device", kernel{errors: []syscall.Errno{unix.EIO}}, "aaabccc", nil, []int{3, 2}, false},
		{"no cutting, and a segment is refused", kernel{part: 1, errors: []syscall.Errno{unix.EINVAL, 0, unix.EPERM}}, "aabccc", map[Loss]int{LossRefused: 1}, []int{1, 1, 1, 1}, true},
		{"no cutting, and full", kernel{errors: []syscall.Errno{unix.EINVAL, full, full, full, full, full, full}}, "", map[Loss]int{LossFull: 7}, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, families[0], Options{})
			if !s.segments() {
				t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT")
			}
			c := client(t, s)
			var lost map[Loss]int
			out := NewOut(s, func(why Loss, n int) {
				if lost == nil {
					lost = map[Loss]int{}
				}
				lost[why] += n
			})
			tt.kernel.take(out)
			commit := func(p string, size, times int) {
				for range times {
					b := out.Reserve(size)
					for i := range b {
						b[i] = p[0]
					}
					out.Commit(sourceOf(c), size)
				}
			}
			commit("a", 10, 3)
			commit("b", 20, 1) // longer: not with those before
			commit("c", 30, 3) // nor these with it
			began := time.Now()
			out.Flush()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("Flush took %s", took)
			}
			if _, err := s.WriteToUDPAddrPort([]byte("."), sourceOf(c)); err != nil {
				t.Fatal(err)
			}
			var got []byte
			for buf := make([]byte, 100); ; {
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
				if buf[0] == '.' {
					break
				}
				got = append(got, buf[0])
			}
			if string(got) != tt.want {
				t.Errorf("%q arrives, want %q", got, tt.want)
			}
			if diff := cmp.Diff(tt.lost, lost); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.calls, tt.kernel.done); diff != "" {
				t.Errorf("messages of each call (-want +got):\n%s", diff)
			}
			if s.segments() != tt.cuts {
				t.Errorf("messages are cut: %v", s.segments())
			}
		})
	}
}

// Equal datagrams to one destination that follow each other are one message, up
// to what the kernel takes.
func TestSegmentsAreJoined(t *testing.T) {
	s := open(t, families[0], Options{})
	if !s.segments() {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT")
	}
	a, b := netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:10")
	for _, tt := range []struct {
		name  string
		to    []netip.AddrPort
		sizes []int
		want  []int // segments of each message
	}{
		{"equal", []netip.AddrPort{a, a, a}, []int{10, 10, 10}, []int{3}},
		{"the last is shorter", []netip.AddrPort{a, a, a}, []int{10, 10, 9}, []int{3}},
		{"one is shorter", []netip.AddrPort{a, a, a}, []int{10, 9, 9}, []int{2, 1}},
		{"one is longer", []netip.AddrPort{a, a, a}, []int{10, 11, 11}, []int{1, 2}},
		{"to two", []netip.AddrPort{a, b, a}, []int{10, 10, 10}, []int{1, 1, 1}},
		{"very many", slices.Repeat([]netip.AddrPort{a}, 70), slices.Repeat([]int{10}, 70), []int{64, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := NewOut(s, nil)
			for i, n := range tt.sizes {
				out.Reserve(n)
				out.Commit(tt.to[i], n)
			}
			var got []int
			for _, m := range out.msgs[:out.count] {
				got = append(got, m.segments)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("segments (-want +got):\n%s", diff)
			}
		})
	}
}
