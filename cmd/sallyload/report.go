package main

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"sallyport/sfu/peer"
)

// kinds are the types of tracks that participants publish.
var kinds = []string{"voice", "screen", "screen-audio", "video"}

// A Report is the outcome of a run.
type Report struct {
	Target  string  `json:"target"`
	Load    string  `json:"load"`
	Path    string  `json:"path"`
	SRTP    string  `json:"srtp"`
	Calls   int     `json:"calls"`
	Users   int     `json:"users"`
	Unmuted int     `json:"unmuted"`
	Screen  bool    `json:"screen"`
	Camera  bool    `json:"camera"`
	Seconds float64 `json:"seconds"` // really measured

	Joins   Joins   `json:"joins"`
	Leaves  Leaves  `json:"leaves"`
	Tracks  Tracks  `json:"tracks"`
	Packets Packets `json:"packets"`

	LatencyUS Spread `json:"latency_us"` // from sender to receiver
	JitterUS  Spread `json:"jitter_us"`  // of tracks, RFC 3550
	RTTUS     Spread `json:"rtt_us"`     // of the last ping on each data channel
	Video     Video  `json:"video"`

	Paths  map[string]int `json:"paths"`            // how many participants took which
	Server *Server        `json:"server,omitempty"` // with -pid
	// LoadCPU is the processor time of sallyload itself in the window, in
	// percent of one core. If it nears what the machine has, the figures above
	// are those of sallyload.
	LoadCPU float64 `json:"load_cpu_percent"`
}

// Joins counts participants; the times are from joining to being connected.
type Joins struct {
	Wanted int            `json:"wanted"`
	Failed int            `json:"failed"`
	TimeUS Spread         `json:"time_us"`
	Errors map[string]int `json:"errors,omitempty"`
}

// Leaves is how those who had joined left, all at once in the end. The times are
// from saying so until the server has confirmed.
type Leaves struct {
	Failed int    `json:"failed"` // not confirmed
	TimeUS Spread `json:"time_us"`
}

// Tracks counts tracks on the receiving side.
type Tracks struct {
	Wanted int `json:"wanted"`
	Got    int `json:"got"`
}

// Packets counts packets sent in the window.
type Packets struct {
	Sent       uint64  `json:"sent"`
	Expected   uint64  `json:"expected"` // sent, times receivers
	Received   uint64  `json:"received"` // without duplicates
	Loss       float64 `json:"loss_percent"`
	PerSecond  float64 `json:"received_per_second"`
	Duplicates uint64  `json:"duplicates"` // since the start
	Late       uint64  `json:"late"`       // out of order, since the start
	Foreign    uint64  `json:"foreign"`    // not what was sent, since the start
	Verified   uint64  `json:"verified"`   // of the received ones, those that were decrypted and checked
}

// Video is what was seen of screens and cameras by those who verify.
type Video struct {
	Tracks  int     `json:"tracks"`
	Frozen  int     `json:"frozen_tracks"` // stood still at least once
	Freezes uint64  `json:"freezes"`
	Seconds float64 `json:"frozen_seconds"` // of all tracks together
}

// Spread is the distribution of a quantity.
type Spread struct {
	P50 int64 `json:"p50"`
	P95 int64 `json:"p95"`
	P99 int64 `json:"p99"`
}

// Server is what the processes of -pid spent in the window, all together.
type Server struct {
	CPUSeconds  float64 `json:"cpu_seconds"`
	CPUPercent  float64 `json:"cpu_percent"` // of one core
	PerOut      float64 `json:"cpu_us_per_packet_out"`
	PerMoved    float64 `json:"cpu_us_per_packet_moved"` // in and out
	MemoryMiB   float64 `json:"memory_mib"`
	PeakMiB     float64 `json:"memory_peak_mib"` // since the processes started
	IdleMiB     float64 `json:"memory_before_joins_mib"`
	PerSession  float64 `json:"memory_kib_per_session"`
	ProcessList []Usage `json:"processes"`
}

// Usage is one process's part.
type Usage struct {
	PID        int     `json:"pid"`
	CPUPercent float64 `json:"cpu_percent"`
	MemoryMiB  float64 `json:"memory_mib"`
	PeakMiB    float64 `json:"memory_peak_mib"`
}

func spread(h *peer.Histogram) Spread {
	us := func(q float64) int64 { return h.Percentile(q).Microseconds() }
	return Spread{P50: us(.5), P95: us(.95), P99: us(.99)}
}

// pathOf names the way of a participant's media, without what differs between
// participants of the same way.
func pathOf(p *peer.Peer) string {
	s, err := p.Selected()
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%s %s -> %s", s.Path, s.LocalType, s.Remote)
}

func percent(part, whole time.Duration) float64 {
	return 100 * part.Seconds() / whole.Seconds()
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// usageOf sums up what the processes spent.
func usageOf(m measurement, r *Report) *Server {
	s := &Server{}
	var idle, memory, peak uint64
	var cpu time.Duration
	for i, after := range m.after {
		spent := after.cpu - m.before[i].cpu
		cpu += spent
		memory += after.memory
		peak += after.peak
		idle += m.idle[i].memory
		s.ProcessList = append(s.ProcessList, Usage{after.pid, percent(spent, m.took), mib(after.memory), mib(after.peak)})
	}
	s.CPUSeconds, s.CPUPercent = cpu.Seconds(), percent(cpu, m.took)
	s.PerOut = float64(cpu.Microseconds()) / float64(max(r.Packets.Received, 1))
	s.PerMoved = float64(cpu.Microseconds()) / float64(max(r.Packets.Received+r.Packets.Sent, 1))
	s.MemoryMiB, s.PeakMiB, s.IdleMiB = mib(memory), mib(peak), mib(idle)
	s.PerSession = (float64(memory) - float64(idle)) / 1024 / float64(max(r.Joins.Wanted-r.Joins.Failed, 1))
	slices.SortFunc(s.ProcessList, func(a, b Usage) int { return a.PID - b.PID })
	return s
}

// reason is an error's text without the session's ID, so that equal failures
// count together.
func reason(err error) string {
	return regexp.MustCompile(`session [a-z0-9]{26}`).ReplaceAllString(err.Error(), "session …")
}
