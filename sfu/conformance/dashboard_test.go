package conformance

import (
	"regexp"
	"strings"
	"testing"
)

// dashboard is what the dashboard that Mattermost publishes for rtcd (Grafana 23225)
// asks Prometheus for: the series, and the labels it groups them by. Prometheus
// itself adds the label instance that it filters by.
var dashboard = []struct {
	name string
	by   []string
}{
	{"rtcd_process_cpu_seconds_total", nil},
	{"go_memstats_heap_inuse_bytes", nil},
	{"go_memstats_stack_inuse_bytes", nil},
	{"go_goroutines", nil},
	{"rtcd_ws_connections_total", nil},
	{"rtcd_ws_messages_total", []string{"type"}},
	{"rtcd_rtc_sessions_total", nil},
	{"rtcd_rtc_errors_total", []string{"type"}},
	{"rtcd_rtc_rtp_tracks_total", []string{"direction", "type"}},
	{"rtcd_rtc_rtp_tracks_writes_time_sum", []string{"type"}},
	{"rtcd_rtc_rtp_tracks_writes_time_count", []string{"type"}},
	{"rtcd_rtc_rtp_tracks_writes_time_bucket", []string{"le", "type"}},
	{"rtcd_rtc_conn_states_total", []string{"type"}},
}

// dashboardHistograms are asked for as _sum, _count and _bucket.
var dashboardHistograms = []string{
	"rtcd_rtc_connection_time", "rtcd_rtc_signaling_lock_grab_time", "rtcd_rtc_signaling_lock_locked_time",
	"rtcd_rtc_client_rtt", "rtcd_rtc_client_jitter", "rtcd_rtc_client_loss_rate",
}

var labelName = regexp.MustCompile(`([a-zA-Z_]+)="`)

// selects reports whether values have a series of that name with those labels, and
// one that is not zero.
func selects(values map[string]float64, name string, by ...string) (series, positive bool) {
	for s, v := range values {
		if metric, labels, _ := strings.Cut(s, "{"); metric == name {
			has := map[string]bool{}
			for _, m := range labelName.FindAllStringSubmatch(labels, -1) {
				has[m[1]] = true
			}
			all := true
			for _, l := range by {
				all = all && has[l]
			}
			series, positive = series || all, positive || all && v > 0
		}
	}
	return series, positive
}

// checkDashboard asks for all that the dashboard does, after everything has been
// exercised.
func checkDashboard(t testing.TB, values map[string]float64) {
	t.Helper()
	for _, q := range dashboard {
		if ok, _ := selects(values, q.name, q.by...); !ok {
			t.Errorf("the dashboard finds no %s by %q", q.name, q.by)
		}
	}
	for _, name := range dashboardHistograms {
		for suffix, by := range map[string][]string{"_sum": nil, "_count": nil, "_bucket": {"le"}} {
			series, positive := selects(values, name+suffix, by...)
			if !series || suffix != "_sum" && !positive { // nobody may have waited
				t.Errorf("the dashboard finds nothing in %s%s", name, suffix)
			}
		}
	}
}
