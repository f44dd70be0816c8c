package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrintTable(t *testing.T) {
	const body = `{"version":"v1","calls":2,"turn":{"allocations":{"udp":1,"tls":0},"realm":""},
		"upstreams":[{"url":"http://10.0.0.1","up":true},{"url":"http://10.0.0.2","up":false}],"errors":[],"last":null,"e":"\u001b[31m"}`
	const want = `version               v1
calls                 2
turn.allocations.udp  1
turn.allocations.tls  0
turn.realm            -
upstreams[0].url      http://10.0.0.1
upstreams[0].up       true
upstreams[1].url      http://10.0.0.2
upstreams[1].up       false
errors                -
last                  -
e                     ?[31m
`
	var got strings.Builder
	if err := printTable(&got, []byte(body)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFetchStatus(t *testing.T) {
	var answer func(w http.ResponseWriter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" || r.Header.Get("Accept") != "application/json" {
			t.Errorf("asked for %s as %q", r.URL, r.Header.Get("Accept"))
		}
		answer(w)
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for _, test := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		err    string
	}{
		{"json", func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"a":1}`)) }, ""},
		{"html", func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }, address + " does not answer with JSON: is it Sallyport?"},
		{"error", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, address + " answers 404 Not Found"},
		{"endless", func(w http.ResponseWriter) {
			for range maxStatus/1024 + 2 {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}, "status is too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer = test.answer
			body, err := fetchStatus(address)
			switch {
			case test.err == "" && (err != nil || string(body) != `{"a":1}`):
				t.Errorf("got %q, %v", body, err)
			case test.err != "" && (err == nil || err.Error() != test.err):
				t.Errorf("got error %v, want %s", err, test.err)
			}
		})
	}
}
