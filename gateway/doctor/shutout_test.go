package doctor

import (
	"net/http"
	"strings"
	"testing"
)

// What Sallyport refuses by its own rules is no fault of Mattermost's.
func TestShutOut(t *testing.T) {
	for reason, want := range map[string]string{
		"pre-auth": "secret", "client-certificate": "certificate", "address": "access.rules",
	} {
		r := shutOut(&http.Response{Header: http.Header{rejectReason: {reason}}})
		if r.status != Skip || !strings.Contains(r.text, want) {
			t.Errorf("%s: %v %q, want %q", reason, r.status, r.text, want)
		}
	}
}
