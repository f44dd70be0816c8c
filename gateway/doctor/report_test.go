package doctor

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReportForPeople(t *testing.T) {
	r := Report{Checks: []Check{
		{ID: "tls.certificate", Status: Pass, Text: "all is well", group: "Name"},
		{ID: "dns.resolve", Status: Warn, Text: "hm", Fix: "look", group: "Name"},
		{ID: "host.fds", Status: Fail, Text: "no", Fix: "do this", group: "Host"},
		{ID: "host.clock", Status: Skip, Text: "unknown", Fix: "ask", group: "Host"},
	}}
	const want = `Name
  PASS  tls.certificate  all is well
  WARN  dns.resolve      hm
                         -> look
Host
  FAIL  host.fds         no
                         -> do this
  SKIP  host.clock       unknown
                         -> ask

1 of 4 checks passed, 1 failed, 1 to look at, 1 skipped
`
	var got strings.Builder
	if err := r.WriteText(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !r.Failed() || (Report{Checks: r.Checks[:2]}).Failed() {
		t.Error("Failed is wrong")
	}
}

func TestReportForPrograms(t *testing.T) {
	r := Report{Version: "v1", Checks: []Check{{ID: "http.h2", Status: Pass, Text: `"<&>"`, Milliseconds: 7, group: "Web"}}}
	const want = `{
  "version": "v1",
  "checks": [
    {
      "id": "http.h2",
      "status": "PASS",
      "text": "\"<&>\"",
      "fix": "",
      "ms": 7
    }
  ]
}
`
	var got strings.Builder
	if err := r.WriteJSON(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestStrangersText: what others answered cannot steer a terminal.
func TestStrangersText(t *testing.T) {
	for in, want := range map[string]string{
		"  draining\n":           "draining",
		"a\r\nb":                 "a  b",
		"\x1b[31mred\x7f\u009b0": "?[31mred??0",
		"evil\u202etxt\u2066":    "evil?txt?",
		"Müller ✓":               "Müller ✓",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := oneLine(strings.Repeat("ä", 10*maxText)); len([]rune(got)) != maxText+1 {
		t.Errorf("%d runes", len([]rune(got)))
	}
}

// TestOrigin is how browsers write it: without the port if that is 443.
func TestOrigin(t *testing.T) {
	for want, target := range map[string]Target{
		"https://chat.example.com":       {Host: "chat.example.com"},
		"https://chat.example.com:10443": {Host: "chat.example.com", Port: 10443},
		"https://[2001:db8::443]":        {Host: "2001:db8::443", Port: 443},
		"https://[2001:db8::1]:8443":     {Host: "2001:db8::1", Port: 8443},
	} {
		target.complete()
		if got := target.origin(); got != want {
			t.Errorf("%+v: %s, want %s", target, got, want)
		}
	}
}

// TestIDs: each is named once, and belongs with those beside it.
func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks() {
		area, rest, ok := strings.Cut(c.id, ".")
		if seen[c.id] || !ok || area == "" || rest == "" || c.group == "" || c.limit <= 0 || c.run == nil {
			t.Errorf("%+v", c)
		}
		seen[c.id] = true
	}
}

func TestMediaPeer(t *testing.T) {
	for _, test := range []struct{ media, want, err string }{
		{"", "invalid AddrPort", ""},
		{"192.0.2.7:8443", "192.0.2.7:8443", ""},
		{":8443", "198.51.100.1:8443", ""},
		{"0.0.0.0:8443", "198.51.100.1:8443", ""},
		{"sfu.example.com:8443", "203.0.113.5:8443", ""}, // IPv4 first
		{"8443", "", "media address"},
		{":http8", "", "media address"},
	} {
		target := Target{MediaUDP: test.media, HTTPSAddress: "198.51.100.1:443", LookupHost: func(context.Context, string) ([]string, error) {
			return []string{"2001:db8::5", "203.0.113.5"}, nil
		}}
		got, err := target.mediaPeer(t.Context())
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, %v", test.media, got, err)
			}
		} else if err != nil || got.String() != test.want {
			t.Errorf("%q: %v, %v; want %s", test.media, got, err, test.want)
		}
	}
}
