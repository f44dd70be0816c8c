package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A group is a kind of work. A sample belongs to the group of its innermost
// function that has one, so what serves several is charged to whom it served.
type group struct {
	name, colour string
	functions    *regexp.Regexp
}

// other takes what belongs to none of the groups.
var other = group{name: "everything else", colour: "#b8b8b8"}

// groups are asked in this order.
var groups = []group{
	{"memory: allocation and garbage collection", "#9fd38a", regexp.MustCompile(
		`^runtime\.(mallocgc|newobject|makeslice|growslice|gc|bgsweep|bgscavenge|scan|mark|greyobject|sweep|\(\*(mheap|mcentral|mcache|gcWork|mspan|sweepLocked)\)|madvise|wb)`)},
	{"kernel: sending", "#e8743b", regexp.MustCompile(
		`^(syscall|internal/poll|golang.org/x/(sys/unix|net/internal/socket))\..*([Ww]rite|[Ss]end)|[./)][a-z]*[sS]endm?msg`)},
	{"kernel: receiving", "#f2b134", regexp.MustCompile(
		`^(syscall|internal/poll|golang.org/x/(sys/unix|net/internal/socket))\..*([Rr]ead|[Rr]ecv)|[./)][a-z]*[rR]ecvm?msg|^sallyport/sfu/internal/batch\.\(\*fastBatch\)\.receive`)},
	{"SRTP", "#8fd6ff", regexp.MustCompile(`^github.com/pion/srtp|^sallyport/sfu/internal/srtp`)},
	{"TLS and TURN", "#269a99", regexp.MustCompile(`^crypto/|^sallyport/(turn|tls)\.|^github.com/pion/turn`)},
	{"ICE, DTLS, SCTP", "#9270ca", regexp.MustCompile(`^github.com/pion/(ice|stun|dtls|sctp|datachannel|mdns)`)},
	{"RTCP and interceptors", "#c86fc9", regexp.MustCompile(`^github.com/pion/(interceptor|rtcp)|^sallyport/sfu/internal/(feedback|reports|packetcache)|^sallyport/sfu\.\(\*congestion\)`)},
	{"HTTP/2 with the client", "#b6d957", regexp.MustCompile(`^net/http\.\(?\*?http2|^net/http/internal|hpack`)},
	{"HTTP/1.1 with Mattermost", "#5cbae6", regexp.MustCompile(`^net/http\.(\(\*(Transport|persistConn|bodyEOFSignal)\)|persistConn|ReadResponse)|^sallyport/gateway\.\(\*(pool|upstream)\)`)},
	{"HTTP/1.1 with the client", "#fac364", regexp.MustCompile(`^net/http\.\(\*(conn|connReader|response|chunkWriter)\)|^net/http\.(readRequest|checkConnErrorWriter)|^sallyport/gateway\.\(\*(framing|strictConn)\)`)},
	{"headers and bodies on their way", "#8c6bb1", regexp.MustCompile(`^net/http/httputil|^sallyport/gateway`)},
	{"forwarding, pion/webrtc", "#3d76dd", regexp.MustCompile(`^sallyport/sfu|^github.com/pion/(webrtc|rtp|transport)`)},
	{"waking and switching goroutines", "#d94e5d", regexp.MustCompile(
		`^runtime\.(schedule|findRunnable|park|mcall|ready|goready|netpoll|futex|note|selectgo|chan|send|recv|lock|unlock|sema|usleep|osyield|mstart|sysmon|stealWork|wakep|startm|stopm|resetspinning|checkTimers|timer|\(\*(timer|timers)\)|goexit0|gosched|execute|exitsyscall|entersyscall|reentersyscall|casgstatus|runq|injectglist|pidle|handoffp|retake|newproc)|^(sync|internal/sync|time)\.`)},
}

// groupOf returns the group of a stack, innermost function first.
func groupOf(stack []string) *group {
	for _, function := range stack {
		for i := range groups {
			if groups[i].functions.MatchString(function) {
				return &groups[i]
			}
		}
	}
	return &other
}

// A share is what one group took.
type share struct {
	group *group
	value int64
}

// shares sums samples up by group, the largest first.
func shares(samples []sample) (all []share, total int64) {
	sums := map[*group]int64{}
	for _, s := range samples {
		sums[groupOf(s.stack)] += s.value
		total += s.value
	}
	for g, v := range sums {
		all = append(all, share{g, v})
	}
	slices.SortFunc(all, func(a, b share) int {
		if a.value != b.value {
			return int(min(max(b.value-a.value, -1), 1))
		}
		return strings.Compare(a.group.name, b.group.name)
	})
	return all, total
}

// table prints where the time of each unit of work goes, in Markdown. count is
// how many were done meanwhile; 0 leaves the microseconds out.
func table(w io.Writer, samples []sample, unit string, count float64) error {
	all, total := shares(samples)
	var b strings.Builder
	fmt.Fprintf(&b, "| what | µs per %s | share |\n|---|--:|--:|\n", unit)
	row := func(name string, value int64) {
		us := "–"
		if count > 0 {
			us = fmt.Sprintf("%.1f", float64(value)/1000/count)
		}
		fmt.Fprintf(&b, "| %s | %s | %.0f %% |\n", name, us, 100*float64(value)/float64(max(total, 1)))
	}
	for _, s := range all {
		row(s.group.name, s.value)
	}
	row("**all**", total)
	_, err := io.WriteString(w, b.String())
	return err
}
