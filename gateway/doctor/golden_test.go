package doctor_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway/doctor"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	number  = regexp.MustCompile(`\d+\.\d ms`)
	address = regexp.MustCompile(`127\.0\.0\.\d:\d+`)
	skew    = regexp.MustCompile(`-?(\d+h\d+m)?\d+s\b`)
	port    = regexp.MustCompile(`\b(UDP|TCP|port) \d{4,5}\b`)
)

// golden examines target and compares everything that did not pass with
// testdata/name.json. The doctor's patience does not suit a machine that tests all
// else meanwhile: it may look three times.
func golden(t *testing.T, name string, target doctor.Target) {
	t.Helper()
	file, diff := filepath.Join("testdata", name+".json"), ""
	for range 3 {
		got := told(t, target, doctor.Run(t.Context(), target))
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff = cmp.Diff(string(want), got); diff == "" {
			return
		}
	}
	t.Errorf("%s: -want +got:\n%s", file, diff)
}

// told is what golden compares. What is different each time is replaced: addresses
// of target by their names.
func told(t *testing.T, target doctor.Target, r doctor.Report) string {
	t.Helper()
	r.Checks = slices.DeleteFunc(slices.Clone(r.Checks), func(c doctor.Check) bool { return c.Status == doctor.Pass })
	for i := range r.Checks {
		r.Checks[i].Milliseconds = 0
	}
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	got := constant(target).Replace(out.String())
	got = number.ReplaceAllString(got, "N ms")
	got = skew.ReplaceAllStringFunc(got, func(s string) string {
		d, _ := time.ParseDuration(s)
		return d.Round(10 * time.Second).String()
	})
	return port.ReplaceAllString(address.ReplaceAllString(got, "{other}"), "$1 {port}")
}

func constant(t doctor.Target) *strings.Replacer {
	names := []struct{ value, name string }{
		{t.HTTPSAddress, "{https}"}, {":" + jsonOf(t.Port), ":{port}"}, {"port " + jsonOf(t.Port), "port {port}"},
		{t.APIURL, "{api}"}, {t.AdminURL, "{admin}"}, {t.UDPAddress, "{udp}"}, {t.HTTPAddress, "{http}"}, {t.MediaUDP, "{media}"},
	}
	for _, u := range t.Upstream {
		names = append(names, struct{ value, name string }{u, "{upstream}"})
	}
	for _, s := range t.Secrets {
		names = append(names, struct{ value, name string }{s.Name, "{" + s.Key + "}"})
	}
	var pairs []string
	for _, n := range names {
		if n.value != "" && n.value != ":0" && n.value != "port 0" {
			pairs = append(pairs, n.value, n.name)
		}
	}
	return strings.NewReplacer(pairs...)
}
