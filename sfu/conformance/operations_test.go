package conformance

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/stun"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// TestConformance67SettingsAreMapped: Sallyport reads neither the TOML file nor
// the environment of rtcd; its documentation says for each setting where it went.
func TestConformance67SettingsAreMapped(t *testing.T) {
	conform(t, 67, brief, func(t testing.TB) {
		ours(t, "the mapping of settings is documentation of Sallyport's")
		const file = "docs/from-rtcd.md"
		b, err := os.ReadFile(filepath.Join("..", "..", file))
		must(t, err)
		var rows []string
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "| `") {
				rows = append(rows, line)
			}
		}
		for _, setting := range [][2]string{ // TOML key, and what a row must name
			{"http.listen_address", "RTCD_API_HTTP_LISTENADDRESS"},
			{"http.tls.enable", "RTCD_API_HTTP_TLS_"},
			{"cert_file", "RTCD_API_HTTP_TLS_"},
			{"cert_key", "RTCD_API_HTTP_TLS_"},
			{"allow_self_registration", "RTCD_API_SECURITY_ALLOWSELFREGISTRATION"},
			{"enable_admin", "RTCD_API_SECURITY_ENABLEADMIN"},
			{"admin_secret_key", "ADMINSECRETKEY"},
			{"session_cache.expiration_minutes", "RTCD_API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES"},
			{"ice_address_udp", "RTCD_RTC_ICEADDRESSUDP"},
			{"ice_port_udp", "RTCD_RTC_ICEPORTUDP"},
			{"ice_address_tcp", "RTCD_RTC_ICEADDRESSTCP"},
			{"ice_port_tcp", "RTCD_RTC_ICEPORTTCP"},
			{"enable_ipv6", "RTCD_RTC_ENABLEIPV6"},
			{"ice_host_override", "RTCD_RTC_ICEHOSTOVERRIDE"},
			{"ice_host_port_override", "RTCD_RTC_ICEHOSTPORTOVERRIDE"},
			{"ice_servers", "RTCD_RTC_ICESERVERS"},
			{"turn.static_auth_secret", "RTCD_RTC_TURNCONFIG_"},
			{"credentials_expiration_minutes", "RTCD_RTC_TURNCONFIG_"},
			{"udp_sockets_count", "RTCD_RTC_UDPSOCKETSCOUNT"},
			{"nack_buffer_size", "RTCD_RTC_NACKBUFFERSIZE"},
			{"nack_disable_copy", "NACKDISABLECOPY"},
			{"data_source", "RTCD_STORE_DATASOURCE"},
			{"enable_console", "RTCD_LOGGER_"},
			{"console_json", "RTCD_LOGGER_"},
			{"console_level", "RTCD_LOGGER_"},
			{"enable_file", "RTCD_LOGGER_"},
			{"file_", "RTCD_LOGGER_"},
			{"enable_color", "RTCD_LOGGER_"},
		} {
			if !slices.ContainsFunc(rows, func(row string) bool {
				return strings.Contains(row, setting[0]) && strings.Contains(row, setting[1])
			}) {
				t.Errorf("%s has no row with %s and %s", file, setting[0], setting[1])
			}
		}
		// What it reads instead is checked: a bad value ends it with status 1.
		for _, bad := range []string{"advertise: [nonsense/]", "ipv6: 7", "unknown: key"} {
			if srv, err := launch(shared.binary, t.TempDir(), settings{sfu: bad}); err == nil {
				_ = srv.kill()
				t.Errorf("it starts with %s", bad)
			} else if !strings.Contains(err.Error(), "exit status 1") {
				t.Errorf("with %s: %v", bad, err)
			}
		}
	})
}

// candidates lists the addresses that a server offers, by protocol.
func candidates(t testing.TB, srv *server) map[string][]string {
	t.Helper()
	a := newAccount()
	must(t, a.register(srv.api))
	p := dialAs(t, srv.api, a)
	out := map[string][]string{}
	g := newGuest(t, p, newID(), options{})
	g.knock()
	sdp := g.answer().SDP
	p.alive() // a whole session later everything has trickled
	note := func(c string) string {
		protocol, addr := endpoint(c)
		if ip := addr.Addr().String(); !slices.Contains(out[protocol], ip) {
			out[protocol] = append(out[protocol], ip)
		}
		if addr.Port() == 0 || !strings.Contains(c, " typ host") {
			t.Errorf("want a host candidate with a port, got %s", c)
		}
		return c
	}
	mapCandidates(sdp, note)
	g.close()
	p.leave(g.j.Session) // so that the server can stop at once
	for _, f := range p.all(func(f frame) bool { return f.session() == g.j.Session && f.Message.Kind == wire.KindICE }) {
		c, err := wire.DecodeCandidate(f.Message.Data)
		must(t, err)
		note(c.Candidate)
	}
	return out
}

func TestConformance68AdvertisedAddresses(t *testing.T) {
	conform(t, 68, brief, func(t testing.TB) {
		ours(t, "advertised addresses are a matter of configuration")
		only := func(ip string) []string { return []string{ip} }
		asked := stunServer(t, netip.MustParseAddr("203.0.113.77"))
		for _, tt := range []struct {
			name     string
			s        settings
			udp, tcp []string
		}{
			{"nothing", settings{}, only("127.0.0.1"), only("127.0.0.1")},
			{"one address", settings{sfu: "advertise: [203.0.113.10]"}, only("203.0.113.10"), only("203.0.113.10")},
			{"pairs", settings{tcp: "127.0.0.2:0", sfu: `advertise: ["203.0.113.10/127.0.0.1", "203.0.113.11/127.0.0.2"]`}, only("203.0.113.10"), only("203.0.113.11")},
			{"pairs that leave out an address", settings{tcp: "127.0.0.2:0", sfu: `advertise: ["203.0.113.10/127.0.0.1"]`}, only("203.0.113.10"), nil},
			{"host name", settings{udp: "127.0.0.2:0", tcp: "127.0.0.2:0", sfu: "advertise: [localhost]"}, only("127.0.0.1"), only("127.0.0.1")},
			{"STUN", settings{sfu: `advertise: ["stun:` + asked + `"]`}, only("203.0.113.77"), only("203.0.113.77")},
		} {
			got := candidates(t, start(t, tt.s))
			if !cmp.Equal(got["udp"], tt.udp) || !cmp.Equal(got["tcp"], tt.tcp) {
				t.Errorf("%s: candidates %v, want %v for UDP and %v for TCP", tt.name, got, tt.udp, tt.tcp)
			}
		}
		t.Log("ice_host_port_override does not apply: Sallyport advertises the ports it is bound to (docs/from-rtcd.md)")
	})
}

// stunServer answers every question with one address and the port that asked. It
// returns where it listens.
func stunServer(t testing.TB, told netip.Addr) string {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			m := message(buf[:n])
			if m == nil || m.Type != stun.BindingRequest {
				continue
			}
			r, err := stun.Build(m, stun.BindingSuccess, &stun.XORMappedAddress{IP: told.AsSlice(), Port: int(from.Port())}, stun.Fingerprint)
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(r.Raw, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

func TestConformance69Drain(t *testing.T) {
	conform(t, 69, brief, func(t testing.TB) {
		empty := start(t, settings{})
		must(t, empty.process.Signal(syscall.SIGTERM))
		empty.exits(t, patience)

		srv := start(t, settings{})
		a := newAccount()
		must(t, a.register(srv.api))
		p := dialAs(t, srv.api, a)
		x := enter(t, p, newID(), options{})
		y := enter(t, p, x.j.Call, options{dc: true})
		x.publish(webrtc.MimeTypeOpus, "mic")
		h := y.hears("voice", x)
		must(t, srv.process.Signal(syscall.SIGTERM))
		h.flows(y, 100)
		y.publish(webrtc.MimeTypeOpus, "mic") // the call goes on in every way
		x.hears("voice", y)
		if r := p.members(x.j.Call); r.status != http.StatusOK {
			t.Errorf("the session API answers %d %s", r.status, r.body)
		}
		x.leave()
		select {
		case <-srv.ended:
			t.Fatal("it ended before its last session")
		case <-time.After(time.Second):
		}
		p.leave(y.j.Session)
		y.ending.Store(true)
		srv.exits(t, patience)
	})
}

var (
	bucketsL = strings.Fields("0.001 0.005 0.0075 0.01 0.025 0.05 0.075 0.1 0.25 0.3 0.4 0.5 0.75 1 +Inf")
	bucketsP = strings.Fields("0.001 0.005 0.0075 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 +Inf")
	bucketsD = strings.Fields("0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf")
)

// metrics lists §7: name, type, labels and buckets.
var metrics = []struct {
	name, kind string
	labels     []string
	buckets    []string
}{
	{"rtcd_rtc_sessions_total", "gauge", []string{"groupID"}, nil},
	{"rtcd_rtc_conn_states_total", "counter", []string{"type"}, nil},
	{"rtcd_rtc_errors_total", "counter", []string{"groupID", "type"}, nil},
	{"rtcd_rtc_rtp_tracks_total", "gauge", []string{"direction", "groupID", "type"}, nil},
	{"rtcd_rtc_rtp_tracks_writes_time", "histogram", []string{"groupID", "type"}, bucketsL},
	{"rtcd_rtc_connection_time", "histogram", []string{"groupID"}, bucketsD},
	{"rtcd_rtc_dc_open_time", "histogram", []string{"groupID"}, bucketsD},
	{"rtcd_rtc_signaling_lock_grab_time", "histogram", []string{"groupID"}, bucketsD},
	{"rtcd_rtc_signaling_lock_locked_time", "histogram", []string{"groupID"}, bucketsD},
	{"rtcd_rtc_client_loss_rate", "histogram", []string{"groupID"}, bucketsP},
	{"rtcd_rtc_client_rtt", "histogram", []string{"groupID"}, bucketsL},
	{"rtcd_rtc_client_jitter", "histogram", []string{"groupID"}, bucketsL},
	{"rtcd_ws_connections_total", "gauge", []string{"clientID"}, nil},
	{"rtcd_ws_messages_total", "counter", []string{"clientID", "direction", "type"}, nil},
	{"rtcd_process_cpu_seconds_total", "counter", nil, nil},
	{"rtcd_process_open_fds", "gauge", nil, nil},
	{"rtcd_process_max_fds", "gauge", nil, nil},
	{"rtcd_process_resident_memory_bytes", "gauge", nil, nil},
	{"rtcd_process_virtual_memory_bytes", "gauge", nil, nil},
	{"rtcd_process_virtual_memory_max_bytes", "gauge", nil, nil},
	{"rtcd_process_start_time_seconds", "gauge", nil, nil},
	{"go_goroutines", "gauge", nil, nil},
	{"go_memstats_heap_inuse_bytes", "gauge", nil, nil},
	{"go_memstats_stack_inuse_bytes", "gauge", nil, nil},
}

func TestConformance70Metrics(t *testing.T) {
	conform(t, 70, brief, func(t testing.TB) {
		ours(t, "the metrics must be those of this test alone")
		srv := start(t, settings{})
		a := newAccount()
		must(t, a.register(srv.api))
		exercise(t, srv, a)

		text := ask(t, http.MethodGet, srv.api+"/metrics", "", nobody)
		if kind := text.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
			t.Errorf("content type %q", kind)
		}
		types, labels, buckets := catalogue(text.body)
		for _, m := range metrics {
			if types[m.name] != m.kind {
				t.Errorf("%s is a %q, want a %s", m.name, types[m.name], m.kind)
				continue
			}
			if diff := cmp.Diff(m.labels, labels[m.name]); diff != "" {
				t.Errorf("labels of %s (-want +got):\n%s", m.name, diff)
			}
			if diff := cmp.Diff(m.buckets, buckets[m.name]); diff != "" {
				t.Errorf("buckets of %s (-want +got):\n%s", m.name, diff)
			}
		}
		values := scrape(t, srv.api)
		id := fmt.Sprintf("%q", a.id)
		for _, series := range []string{
			`rtcd_rtc_errors_total{groupID=` + id + `,type="signaling"}`,
			`rtcd_rtc_conn_states_total{type="connected"}`, `rtcd_rtc_conn_states_total{type="closed"}`,
			`rtcd_rtc_rtp_tracks_writes_time_count{groupID=` + id + `,type="voice"}`,
			`rtcd_rtc_rtp_tracks_writes_time_count{groupID=` + id + `,type="screen"}`,
			`rtcd_rtc_rtp_tracks_writes_time_count{groupID=` + id + `,type="screen-audio"}`,
			`rtcd_ws_messages_total{clientID=` + id + `,direction="in",type="join"}`,
			`rtcd_ws_messages_total{clientID=` + id + `,direction="in",type="rtc"}`,
			`rtcd_ws_messages_total{clientID=` + id + `,direction="in",type="leave"}`,
			`rtcd_ws_messages_total{clientID=` + id + `,direction="out",type="rtc"}`,
			`rtcd_ws_messages_total{clientID=` + id + `,direction="out",type="vad"}`,
			`rtcd_rtc_signaling_lock_grab_time_count{groupID=` + id + `}`,
			`rtcd_rtc_signaling_lock_locked_time_count{groupID=` + id + `}`,
			`rtcd_rtc_dc_open_time_count{groupID=` + id + `}`,
		} {
			if values[series] <= 0 {
				t.Errorf("%s is %g", series, values[series])
			}
		}
		checkDashboard(t, values)
		for series, v := range values {
			if v < 0 {
				t.Errorf("%s is %g", series, v)
			}
		}
	})
}

// exercise uses every feature and goes away again. While it is there the gauges
// must show it, and afterwards nothing.
func exercise(t testing.TB, srv *server, a account) {
	t.Helper()
	for _, edit := range []func(*http.Request){
		func(r *http.Request) { r.Header.Set("Origin", "http://elsewhere.example") },
		func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") },
		func(r *http.Request) { r.Header.Del("Upgrade"); r.Header.Del("Connection") },
	} {
		for _, auth := range []func(*http.Request){a.basic, nobody} {
			r, err := upgrade(srv.api, auth, edit)
			must(t, err)
			if r.status == http.StatusSwitchingProtocols {
				t.Error("a bad upgrade succeeds")
			}
		}
	}
	p := dialAs(t, srv.api, a)
	p.join(wire.Join{User: "u", Session: "s"})
	p.join(wire.Join{Call: "c", User: "u"})
	bad := newJoin(newID())
	p.join(bad)
	p.rtc(bad.Session, wire.KindSDP, []byte(`{"type":"offer","sdp":"nonsense"}`))
	p.await("close", closed(bad.Session))

	x, y := enter(t, p, newID(), options{av1: true}), (*guest)(nil)
	y = enter(t, p, x.j.Call, options{dc: true, av1: true})
	p.join(x.j) // exists
	x.publish(webrtc.MimeTypeOpus, "mic")
	share(x, "screen")
	x.publish(webrtc.MimeTypeAV1, "screen")
	y.hears("voice", x)
	y.hears("screen-audio", x)
	until(t, "AV1", func() bool {
		h := y.track("screen", x)
		return h != nil && h.mime == webrtc.MimeTypeAV1 && h.count() > 5
	})
	x.rtc(wire.KindMute)
	p.await("voice-off", voice(x.j.Session, wire.KindVoiceOff))
	for _, m := range []wire.ChannelMessage{{Type: wire.ChannelLoss, Value: 0.01}, {Type: wire.ChannelRTT, Value: 0.02}, {Type: wire.ChannelJitter, Value: 0.003}} {
		y.tell(m)
	}
	id := fmt.Sprintf("%q", a.id)
	tracks := func(direction, kind string) string {
		return fmt.Sprintf(`rtcd_rtc_rtp_tracks_total{direction=%q,groupID=%s,type=%q}`, direction, id, kind)
	}
	during := map[string]float64{
		`rtcd_rtc_sessions_total{groupID=` + id + `}`: 2, `rtcd_ws_connections_total{clientID=` + id + `}`: 1,
		tracks("in", "audio/opus"): 2, tracks("in", "video/VP8"): 1, tracks("in", "video/AV1"): 1,
		tracks("out", "audio/opus"): 2, tracks("out", "video/VP8"): 0, tracks("out", "video/AV1"): 1,
	}
	gauges := func(want map[string]float64) func() bool {
		return func() bool {
			got := scrape(t, srv.api)
			for series := range maps.Keys(want) {
				if got[series] != want[series] {
					return false
				}
			}
			return true
		}
	}
	until(t, fmt.Sprintf("gauges of %v", during), gauges(during))
	x.leave()
	y.leave()
	p.close()
	for series := range during {
		during[series] = 0
	}
	until(t, "gauges at zero after everybody has left", gauges(during))
}

var seriesName = regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? `)

// catalogue reads types, label names and buckets of an exposition.
func catalogue(text string) (types map[string]string, labels, buckets map[string][]string) {
	types, labels, buckets = map[string]string{}, map[string][]string{}, map[string][]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == "TYPE" {
			types[f[2]] = f[3]
			continue
		}
		m := seriesName.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && types[base] == "histogram" {
				name = base
			}
		}
		var names []string
		for pair := range strings.SplitSeq(m[2], ",") {
			key, value, _ := strings.Cut(pair, "=")
			switch {
			case key == "le":
				if le := strings.Trim(value, `"`); !slices.Contains(buckets[name], le) {
					buckets[name] = append(buckets[name], le)
				}
			case key != "":
				names = append(names, key)
			}
		}
		slices.Sort(names)
		labels[name] = names
	}
	return types, labels, buckets
}

func TestConformance71StockPlugin(t *testing.T) {
	conform(t, 71, brief, func(t testing.TB) {
		t.Skipf("there is no Mattermost with the plugin and its licence here; what it does on activation is in statements 1, 4, 7, 13 and 15")
	})
}

func TestConformance72StockWebClient(t *testing.T) {
	conform(t, 72, brief, func(t testing.TB) {
		elsewhere(t, "gateway/browser_matrix_test.go", "TestBrowserMatrix", "there is no stock web client here; calls of three Chromiums that publish as it does, with all combinations of the settings")
	})
}
